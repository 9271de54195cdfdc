// Videos and sound of strangers: an answer or Error, nothing else, and nothing but the bytes is read.
// What is ours is the way in and out of FFmpeg: its libraries have fuzzers of their own.
#include <string>

#include "distorch/base/error.h"
#include "distorch/media/video_reader.h"
#include "distorch/media/workflow_texts.h"

using namespace distorch::media;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    if (begins_as_video(bytes)) workflow_texts_in(bytes, "fuzz");
    VideoReader reader(std::move(bytes), "fuzz");
    // A few frames are enough; large ones would only be slow.
    const auto& facts = reader.facts();
    if (facts.width > 512 || facts.height > 512) return 0;
    int frames = 0;
    if (facts.has_pictures) reader.frames([&](Image, double) { return ++frames < 8; });
    if (facts.has_pictures)
      reader.frames([&](Image, double) { return ++frames < 16; }, {.start = 0.1, .duration = 0.2});
    if (facts.has_sound) reader.sound({.start = 0.1, .duration = 0.5});
  } catch (const distorch::Error&) {
  }
  return 0;
}
