// Text chunks, EXIF blocks and pixels of pictures from strangers: an answer or Error, nothing else.
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/media/png.h"
#include "distorch/media/read_image.h"
#include "distorch/media/workflow_texts.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    distorch::media::workflow_texts_in(bytes, "fuzz");
  } catch (const distorch::Error&) {
  }
  try {
    distorch::media::decode_image(bytes, "fuzz");
  } catch (const distorch::Error&) {
  }
  distorch::media::parse_exif(bytes);
  return 0;
}
