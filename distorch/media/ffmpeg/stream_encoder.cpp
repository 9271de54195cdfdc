#include <fmt/format.h>

#include "distorch/media/ffmpeg/encoder.h"

namespace distorch::media::ffmpeg {

StreamEncoder::StreamEncoder(Output& output, const std::string& encoder)
    : output_(output), name_(encoder), packet_(av_packet_alloc()) {
  const auto* found = avcodec_find_encoder_by_name(encoder.c_str());
  if (!found)
    throw Error(ErrorKind::Usage, "codec",
                fmt::format("'{}' is an encoder that FFmpeg here (libavcodec {}.{}) does not have",
                            encoder, LIBAVCODEC_VERSION_MAJOR, LIBAVCODEC_VERSION_MINOR));
  if (avformat_query_codec(output.get()->oformat, found->id, FF_COMPLIANCE_NORMAL) == 0)
    throw Error(ErrorKind::Usage, "codec",
                fmt::format("{} does not go into a file of the form {}",
                            avcodec_get_name(found->id), output.get()->oformat->name));
  codec_.reset(avcodec_alloc_context3(found));
  if (!codec_ || !packet_) throw std::bad_alloc();
  if (output.wants_headers()) codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
}

void StreamEncoder::open(Settings& settings) {
  forget_messages();
  // Older ones say this on standard error alone.
  constexpr int least = 64;
  bool small = name_ == "libsvtav1" && (codec_->width < least || codec_->height < least);
  output_.check(avcodec_open2(codec_.get(), codec_->codec, settings.get()),
                fmt::format("cannot be encoded with {}{}", name_,
                            small ? ", which wants at least 64 x 64 pixels" : ""));
  if (const auto* unknown = settings.left())
    throw Error(ErrorKind::Usage, "codec", fmt::format("{} has no setting '{}'", name_, unknown));
  stream_ = output_.add_stream();
  stream_->time_base = codec_->time_base;
  if (codec_->codec_type == AVMEDIA_TYPE_VIDEO) stream_->avg_frame_rate = codec_->framerate;
  output_.check(avcodec_parameters_from_context(stream_->codecpar, codec_.get()),
                "cannot be written");
}

void StreamEncoder::encode(AVFrame* frame) {
  int code = avcodec_send_frame(codec_.get(), frame);
  while (code >= 0) {
    code = avcodec_receive_packet(codec_.get(), packet_.get());
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
    if (code < 0) break;
    packet_->stream_index = stream_->index;
    if (packet_->duration == 0 && codec_->codec_type == AVMEDIA_TYPE_VIDEO) packet_->duration = 1;
    av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
    output_.write(packet_.get());
  }
  output_.check(code, fmt::format("cannot be encoded with {}", name_));
}

}  // namespace distorch::media::ffmpeg
