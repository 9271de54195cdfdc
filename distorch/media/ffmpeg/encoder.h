#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "distorch/media/ffmpeg/io.h"

namespace distorch::media::ffmpeg {

/// One stream that is encoded into an output.
class StreamEncoder {
 public:
  /// Error(Usage) where FFmpeg here has no encoder of that name or the container no such codec.
  StreamEncoder(Output& output, const std::string& encoder);

  AVCodecContext* codec() { return codec_.get(); }
  /// After codec() is set up: opens it, with its settings, and makes its stream.
  void open(Settings& settings);
  /// nullptr: what the encoder still holds.
  void encode(AVFrame* frame);

 private:
  Output& output_;
  std::string name_;
  Held<AVCodecContext> codec_;
  Held<AVPacket> packet_;
  AVStream* stream_ = nullptr;
};

/// Sound beside pictures, or alone.
class SoundEncoder {
 public:
  SoundEncoder(Output& output, const VideoOptions::Sounds& options, Sound sound);
  /// Encodes what is before that time in seconds.
  void encode_until(double seconds);
  /// And all the rest.
  void finish();

 private:
  void set_up(const VideoOptions::Sounds& options);
  void convert(std::size_t samples);
  void drain(bool all);
  std::vector<const std::uint8_t*> planes_at(std::size_t sample) const;

  Output& output_;
  Sound sound_;
  StreamEncoder encoder_;
  Held<SwrContext> resampler_;
  Held<AVAudioFifo> queue_;
  Held<AVFrame> frame_;
  std::size_t done_ = 0;      // samples of sound_
  std::int64_t encoded_ = 0;  // samples of the encoder
};

std::unique_ptr<Encoder> make_encoder(ByteSink& sink, const VideoOptions& options, Sound sound,
                                      const std::string& where);
bool copy(ByteSource& source, ByteSink& sink, const VideoOptions& options, Sound sound,
          const std::string& where);

}  // namespace distorch::media::ffmpeg
