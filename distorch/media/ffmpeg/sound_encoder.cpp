#include <fmt/format.h>

#include <algorithm>

#include "distorch/media/ffmpeg/encoder.h"

namespace distorch::media::ffmpeg {

namespace {

constexpr std::size_t kChunk = 1 << 14;  // samples converted at once
constexpr int kOwnFrame = 4096;          // samples of a frame where the encoder takes any number

/// The rate itself where the encoder has it, else the next above, else its highest.
int rate_for(const AVCodec* codec, int wanted) {
  if (!codec->supported_samplerates) return wanted;
  int above = 0, highest = 0;
  for (const auto* rate = codec->supported_samplerates; *rate != 0; ++rate) {
    highest = std::max(highest, *rate);
    if (*rate >= wanted && (above == 0 || *rate < above)) above = *rate;
  }
  return above != 0 ? above : highest;
}

/// Floats where the encoder has them, else its first form.
AVSampleFormat form_for(const AVCodec* codec) {
  if (!codec->sample_fmts) return AV_SAMPLE_FMT_FLTP;
  for (auto wanted : {AV_SAMPLE_FMT_FLTP, AV_SAMPLE_FMT_FLT})
    for (const auto* form = codec->sample_fmts; *form != AV_SAMPLE_FMT_NONE; ++form)
      if (*form == wanted) return wanted;
  return codec->sample_fmts[0];
}

}  // namespace

SoundEncoder::SoundEncoder(Output& output, const VideoOptions::Sounds& options, Sound sound)
    : output_(output),
      sound_(std::move(sound)),
      encoder_(output, options.encoder),
      frame_(av_frame_alloc()) {
  if (!frame_) throw std::bad_alloc();
  if (sound_.rate < 1 || sound_.channels.empty())
    throw Error(ErrorKind::Usage, "sound", "has no channels or no sample rate");
  for (const auto& channel : sound_.channels)
    if (channel.size() != sound_.length())
      throw Error(ErrorKind::Shape, "sound", "has channels of several lengths");
  set_up(options);
}

void SoundEncoder::set_up(const VideoOptions::Sounds& options) {
  auto* codec = encoder_.codec();
  codec->sample_rate = rate_for(codec->codec, sound_.rate);
  codec->sample_fmt = form_for(codec->codec);
  codec->time_base = {1, codec->sample_rate};
  codec->bit_rate = options.bit_rate;
  av_channel_layout_default(&codec->ch_layout, static_cast<int>(sound_.channels.size()));
  if (options.quality) {
    codec->flags |= AV_CODEC_FLAG_QSCALE;
    codec->global_quality = *options.quality * FF_QP2LAMBDA;
  }
  Settings none;
  encoder_.open(none);
  SwrContext* made = nullptr;
  output_.check(swr_alloc_set_opts2(&made, &codec->ch_layout, codec->sample_fmt, codec->sample_rate,
                                    &codec->ch_layout, AV_SAMPLE_FMT_FLTP, sound_.rate, 0, nullptr),
                "has sound that cannot be converted");
  resampler_.reset(made);
  output_.check(swr_init(made), "has sound that cannot be converted");
  queue_.reset(av_audio_fifo_alloc(codec->sample_fmt, codec->ch_layout.nb_channels, kChunk));
  if (!queue_) throw std::bad_alloc();
}

std::vector<const std::uint8_t*> SoundEncoder::planes_at(std::size_t sample) const {
  std::vector<const std::uint8_t*> planes;
  for (const auto& channel : sound_.channels)
    planes.push_back(reinterpret_cast<const std::uint8_t*>(channel.data() + sample));
  return planes;
}

/// So many samples more, 0: what the resampler still holds, into the queue.
void SoundEncoder::convert(std::size_t samples) {
  auto planes = planes_at(done_);
  auto* codec = encoder_.codec();
  int room = swr_get_out_samples(resampler_.get(), static_cast<int>(samples));
  output_.check(room, "has sound that cannot be converted");
  if (room == 0) return;
  Held<AVFrame> made(av_frame_alloc());
  if (!made) throw std::bad_alloc();
  made->format = codec->sample_fmt;
  made->nb_samples = room;
  made->sample_rate = codec->sample_rate;
  output_.check(av_channel_layout_copy(&made->ch_layout, &codec->ch_layout), "has no memory");
  output_.check(av_frame_get_buffer(made.get(), 0), "has no memory");
  int count = swr_convert(resampler_.get(), made->extended_data, room,
                          samples > 0 ? planes.data() : nullptr, static_cast<int>(samples));
  output_.check(count, "has sound that cannot be converted");
  output_.check(
      av_audio_fifo_write(queue_.get(), reinterpret_cast<void**>(made->extended_data), count),
      "has no memory");
  done_ += samples;
}

/// Encodes whole frames of the queue; all: the shorter last one too.
void SoundEncoder::drain(bool all) {
  auto* codec = encoder_.codec();
  int size = codec->frame_size > 0 ? codec->frame_size : kOwnFrame;
  for (;;) {
    int there = av_audio_fifo_size(queue_.get());
    if (there < size && (!all || there == 0)) return;
    av_frame_unref(frame_.get());
    frame_->format = codec->sample_fmt;
    frame_->nb_samples = std::min(there, size);
    frame_->sample_rate = codec->sample_rate;
    output_.check(av_channel_layout_copy(&frame_->ch_layout, &codec->ch_layout), "has no memory");
    output_.check(av_frame_get_buffer(frame_.get(), 0), "has no memory");
    av_audio_fifo_read(queue_.get(), reinterpret_cast<void**>(frame_->extended_data),
                       frame_->nb_samples);
    frame_->pts = encoded_;
    encoded_ += frame_->nb_samples;
    encoder_.encode(frame_.get());
  }
}

void SoundEncoder::encode_until(double seconds) {
  auto until =
      std::min(sound_.length(), static_cast<std::size_t>(std::max(seconds, 0.0) * sound_.rate));
  while (done_ < until) {
    convert(std::min(kChunk, until - done_));
    drain(false);
  }
}

void SoundEncoder::finish() {
  encode_until(sound_.seconds() + 1);
  convert(0);
  drain(true);
  encoder_.encode(nullptr);
}

}  // namespace distorch::media::ffmpeg
