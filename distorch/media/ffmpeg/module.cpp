// The module's one function.
#include <fmt/format.h>

#include "distorch/media/ffmpeg/decoder.h"
#include "distorch/media/ffmpeg/encoder.h"

namespace distorch::media::ffmpeg {

namespace {

class LinkedLibrary : public Library {
 public:
  std::unique_ptr<Decoder> open(ByteSource& source, const std::string& where) const override {
    return open_decoder(source, where);
  }
  std::unique_ptr<Encoder> create(ByteSink& sink, const VideoOptions& options, Sound sound,
                                  const std::string& where) const override {
    return make_encoder(sink, options, std::move(sound), where);
  }
  bool copy(ByteSource& source, ByteSink& sink, const VideoOptions& options, Sound sound,
            const std::string& where) const override {
    return ffmpeg::copy(source, sink, options, std::move(sound), where);
  }
  bool has_encoder(const std::string& name) const override {
    return avcodec_find_encoder_by_name(name.c_str()) != nullptr;
  }
  std::string version() const override {
    auto version = avcodec_version();
    return fmt::format("FFmpeg's libavcodec {}.{}.{}", AV_VERSION_MAJOR(version),
                       AV_VERSION_MINOR(version), AV_VERSION_MICRO(version));
  }
};

const Library& linked_library() {
  static const LinkedLibrary library;
  static const bool quiet = (keep_messages(), true);
  (void)quiet;
  return library;
}

}  // namespace

}  // namespace distorch::media::ffmpeg

extern "C" [[gnu::visibility("default")]] const void* distorch_video_module() {
  using namespace distorch::media::ffmpeg;
  static const ModuleEntry entry{kModuleInterface, linked_library};
  return &entry;
}
