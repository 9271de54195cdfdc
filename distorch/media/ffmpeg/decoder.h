#pragma once
#include <memory>
#include <optional>

#include "distorch/media/ffmpeg/io.h"

namespace distorch::media::ffmpeg {

/// One stream that is decoded.
class StreamDecoder {
 public:
  /// Error(Usage) where FFmpeg here has no decoder for it.
  StreamDecoder(Input& input, AVStream* stream, const std::string& where);

  AVStream* stream() { return stream_; }
  /// Gives each frame of the packet (nullptr: of what is left) to take(AVFrame&), until that
  /// returns false; then false.
  template <class Take>
  bool decode(const AVPacket* packet, Take take) {
    send(packet);
    while (receive())
      if (!take(*frame_)) return false;
    return true;
  }
  /// Of the last frame, from the start of the file.
  double seconds() const;

 private:
  void send(const AVPacket* packet);
  bool receive();

  Input& input_;
  AVStream* stream_;
  Held<AVCodecContext> codec_;
  Held<AVFrame> frame_;
};

std::unique_ptr<Decoder> open_decoder(ByteSource& source, const std::string& where);

}  // namespace distorch::media::ffmpeg
