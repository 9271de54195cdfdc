#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "distorch/media/video.h"

namespace distorch::media {

namespace ffmpeg {
class ByteSource;
class Decoder;
}  // namespace ffmpeg

/// A file of moving pictures or sound (MP4, MOV, WebM, Matroska, AVI, GIF, MPEG, Ogg, WAV, FLAC, MP3
/// and some more) as FFmpeg's libraries decode it. The container is found by content, never by name;
/// nothing but the file itself is opened, whatever it refers to. Errors: Error(MissingFile);
/// Error(Format): not of these containers, broken, cut short, or of more pixels, frames or samples
/// than pixel_limit, frames_pixel_limit and sample_limit; Error(Usage) where FFmpeg's libraries or a
/// decoder are missing; Error(Interrupted).
class VideoReader {
 public:
  explicit VideoReader(const std::filesystem::path& path);
  VideoReader(std::string bytes, const std::string& where);
  ~VideoReader();
  VideoReader(VideoReader&&) noexcept;
  VideoReader& operator=(VideoReader&&) noexcept;

  const VideoFacts& facts() const;
  /// The frames of a part of the file in the order in which they are shown, RGB, turned upright:
  /// those whose time is in start <= t < start + duration. Colours are converted as the file says
  /// (BT.601 where it does not), as PyAV does. Any number of calls.
  void frames(const TakeVideoFrame& take, TimeRange range = {});
  /// The sound of a part of the file with the file's own rate and channels; no channels where it has
  /// none.
  Sound sound(TimeRange range = {});

 private:
  std::string where_;
  std::unique_ptr<ffmpeg::ByteSource> source_;
  std::unique_ptr<ffmpeg::Decoder> decoder_;
};

}  // namespace distorch::media
