// Animations and pages of strangers in every format that is parsed here or by small libraries: an
// answer or Error, nothing else. The first byte picks the format, so that few inputs are needed to
// reach each.
#include <string>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/media/apng.h"
#include "distorch/media/avif.h"
#include "distorch/media/bmp.h"
#include "distorch/media/gif.h"
#include "distorch/media/tiff.h"

using namespace distorch::media;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  // A few frames are enough; large ones would only be slow.
  int frames = 0;
  auto take = [&](Image) { return ++frames < 8; };
  try {
    switch (data[0] % 5) {
      case 0: decode_gif(bytes, "fuzz", take); break;
      case 1: decode_bmp(bytes, "fuzz"); break;
      case 2: decode_tiff(bytes, "fuzz", take); break;
      case 3: decode_avif(bytes, "fuzz", take); break;
      case 4:
        if (is_apng(bytes)) decode_apng(bytes, "fuzz", take);
        break;
    }
  } catch (const distorch::Error&) {
  }
  return 0;
}
