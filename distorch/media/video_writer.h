#pragma once
#include <filesystem>
#include <memory>

#include "distorch/base/atomic_file.h"
#include "distorch/media/video.h"

namespace distorch::media {

namespace ffmpeg {
class ByteSink;
class Encoder;
}  // namespace ffmpeg

/// Encodes frames and sound into a file that appears under its name only when it is complete:
/// without finish() and a commit nothing is left. Errors: Error(Usage) for options that do not fit
/// together, an encoder that FFmpeg here lacks, sizes that the encoder cannot have;
/// Error(OutOfMemory) where the disk is full; Error(Interrupted).
class VideoWriter {
 public:
  /// `sound` is encoded beside the frames; it may be longer or shorter than they are. Without
  /// options.sounds it is left out.
  VideoWriter(const std::filesystem::path& path, const VideoOptions& options, Sound sound = {});
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;

  /// RGB or RGBA of the size in the options, else Error(Shape); alpha is kept where the pixel format
  /// has it.
  void add(const FrameView& frame);
  void add(const Image& frame) { add(view_of(frame)); }
  /// Encodes what is left and ends the file, still without its name.
  void finish();
  /// After finish(): as AtomicFile's.
  void commit() { file_.commit(); }
  bool commit_if_absent(const std::filesystem::path& name) { return file_.commit_if_absent(name); }

 private:
  AtomicFile file_;
  std::unique_ptr<ffmpeg::ByteSink> sink_;
  std::unique_ptr<ffmpeg::Encoder> encoder_;
  int width_ = 0, height_ = 0;
};

/// Whether FFmpeg here can encode with that.
bool has_video_encoder(const std::string& name);

/// Writes the streams of `from` as they are into another container, with options.texts over its own;
/// with options.sounds `sound` takes the place of what is heard in it. False, and nothing written,
/// where the container cannot hold them. Otherwise as VideoReader and VideoWriter; not committed.
bool copy_streams(const std::filesystem::path& from, AtomicFile& to, const VideoOptions& options,
                  Sound sound = {});

}  // namespace distorch::media
