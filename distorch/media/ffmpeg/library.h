#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "distorch/media/video.h"

// What is compiled against FFmpeg lies in a library of its own, the module (libdistorch_video.so):
// FFmpeg's libraries bring a hundred others with them, which would cost every start of the program
// tens of milliseconds. It is loaded with the first video. The module knows no files: it reads and
// writes through the two classes below. Errors are thrown over its border. For media/ only.
namespace distorch::media::ffmpeg {

/// Bytes that are read. What it throws ends the call that needed them.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::int64_t size() const = 0;
  /// How many bytes were read; less than `count` only at the end.
  virtual std::size_t read_at(std::int64_t offset, char* to, std::size_t count) = 0;
};

/// Bytes that are written, at any place. What it throws ends the call that wrote them.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write_at(std::int64_t offset, std::string_view bytes) = 0;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual const VideoFacts& facts() const = 0;
  virtual void frames(TimeRange range, const TakeVideoFrame& take) = 0;
  virtual Sound sound(TimeRange range) = 0;
};

class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual void add(const FrameView& frame) = 0;
  virtual void finish() = 0;
};

class Library {
 public:
  virtual ~Library() = default;
  /// `where` names the file in errors. The source must outlive the decoder.
  virtual std::unique_ptr<Decoder> open(ByteSource& source, const std::string& where) const = 0;
  /// The sink must outlive the encoder.
  virtual std::unique_ptr<Encoder> create(ByteSink& sink, const VideoOptions& options, Sound sound,
                                          const std::string& where) const = 0;
  /// The same streams in another container, with `texts` over those of the source, and with
  /// options.sounds `sound` in place of its own. False, and nothing written, where the container
  /// cannot hold them.
  virtual bool copy(ByteSource& source, ByteSink& sink, const VideoOptions& options, Sound sound,
                    const std::string& where) const = 0;
  virtual bool has_encoder(const std::string& name) const = 0;
  /// "FFmpeg's libavcodec 59.37.100"
  virtual std::string version() const = 0;
};

/// What the module's one function, kModuleFunction, returns a pointer to.
struct ModuleEntry {
  int interface_number = 0;  // kModuleInterface when it was compiled
  const Library& (*library)() = nullptr;
};
/// To be raised by whoever changes a class above or in video.h.
constexpr int kModuleInterface = 1;
constexpr const char* kModuleFunction = "distorch_video_module";
constexpr const char* kModuleFile = "libdistorch_video.so";

/// The module, loaded with the first call. Error(Usage) where it, or FFmpeg, is not there.
const Library& library();

}  // namespace distorch::media::ffmpeg
