#include <fmt/format.h>

#include "distorch/media/ffmpeg/decoder.h"

namespace distorch::media::ffmpeg {

StreamDecoder::StreamDecoder(Input& input, AVStream* stream, const std::string& where)
    : input_(input), stream_(stream), frame_(av_frame_alloc()) {
  const auto* decoder = avcodec_find_decoder(stream->codecpar->codec_id);
  if (!decoder)
    throw Error(ErrorKind::Usage, where,
                fmt::format("is encoded as {}, which FFmpeg here cannot decode",
                            avcodec_get_name(stream->codecpar->codec_id)));
  codec_.reset(avcodec_alloc_context3(decoder));
  if (!codec_ || !frame_) throw std::bad_alloc();
  input_.check(avcodec_parameters_to_context(codec_.get(), stream->codecpar), "cannot be decoded");
  codec_->pkt_timebase = stream->time_base;
  codec_->max_pixels = static_cast<std::int64_t>(pixel_limit);
  codec_->thread_count = 0;  // as many as there are processors
  input_.check(avcodec_open2(codec_.get(), decoder, nullptr), "cannot be decoded");
}

double StreamDecoder::seconds() const {
  auto time = frame_->best_effort_timestamp;
  if (time == AV_NOPTS_VALUE) return 0;
  if (stream_->start_time != AV_NOPTS_VALUE) time -= stream_->start_time;
  return static_cast<double>(time) * av_q2d(stream_->time_base);
}

void StreamDecoder::send(const AVPacket* packet) {
  forget_messages();
  int code = avcodec_send_packet(codec_.get(), packet);
  if (code != AVERROR_EOF) input_.check(code, "is broken: a part of it cannot be decoded");
}

bool StreamDecoder::receive() {
  int code = avcodec_receive_frame(codec_.get(), frame_.get());
  if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return false;
  input_.check(code, "is broken: a part of it cannot be decoded");
  return true;
}

}  // namespace distorch::media::ffmpeg
