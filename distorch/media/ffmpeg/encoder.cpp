#include "distorch/media/ffmpeg/encoder.h"

#include <fmt/format.h>

#include <optional>

namespace distorch::media::ffmpeg {

namespace {

AVPixelFormat source_format(const FrameView& frame) {
  if (frame.bits == 16) return frame.channels == 4 ? AV_PIX_FMT_RGBA64 : AV_PIX_FMT_RGB48;
  return frame.channels == 4 ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24;
}

/// What the file says, and with which matrix of swscale.
struct Marks {
  AVColorPrimaries primaries;
  AVColorTransferCharacteristic transfer;
  AVColorSpace space;
  int matrix;
};

Marks marks_of(Colours colours) {
  switch (colours) {
    case Colours::Bt709: return {AVCOL_PRI_BT709, AVCOL_TRC_BT709, AVCOL_SPC_BT709, SWS_CS_ITU709};
    case Colours::Srgb:
      return {AVCOL_PRI_BT709, AVCOL_TRC_IEC61966_2_1, AVCOL_SPC_BT709, SWS_CS_ITU709};
    case Colours::Hlg:
      return {AVCOL_PRI_BT2020, AVCOL_TRC_ARIB_STD_B67, AVCOL_SPC_BT2020_NCL, SWS_CS_BT2020};
    case Colours::Pq:
      return {AVCOL_PRI_BT2020, AVCOL_TRC_SMPTE2084, AVCOL_SPC_BT2020_NCL, SWS_CS_BT2020};
    case Colours::Unmarked: break;
  }
  return {AVCOL_PRI_UNSPECIFIED, AVCOL_TRC_UNSPECIFIED, AVCOL_SPC_UNSPECIFIED, SWS_CS_DEFAULT};
}

class FileEncoder : public Encoder {
 public:
  FileEncoder(ByteSink& sink, const VideoOptions& options, Sound sound, const std::string& where)
      : options_(options), where_(where), output_(sink, options, where) {
    if (options_.pictures) open_pictures(*options_.pictures);
    if (options_.sounds && sound.length() > 0)
      sounds_.emplace(output_, *options_.sounds, std::move(sound));
    if (!pictures_ && !sounds_)
      throw Error(ErrorKind::Usage, where_, "would hold neither pictures nor sound");
    output_.begin();
  }

  void add(const FrameView& frame) override {
    scale(frame);
    frame_->pts = frames_++;
    pictures_->encode(frame_.get());
    if (sounds_)
      sounds_->encode_until(static_cast<double>(frames_) / options_.pictures->rate.value());
  }

  void finish() override {
    if (pictures_) pictures_->encode(nullptr);
    if (sounds_) sounds_->finish();
    output_.end();
  }

 private:
  void open_pictures(const VideoOptions::Pictures& wanted);
  AVPixelFormat pixel_format(const VideoOptions::Pictures& wanted) const;
  void scale(const FrameView& frame);

  VideoOptions options_;
  std::string where_;
  Output output_;
  std::optional<StreamEncoder> pictures_;
  std::optional<SoundEncoder> sounds_;
  Held<SwsContext> scaler_;
  Held<AVFrame> frame_;
  std::int64_t frames_ = 0;
};

AVPixelFormat FileEncoder::pixel_format(const VideoOptions::Pictures& wanted) const {
  auto format = av_get_pix_fmt(wanted.pixel_format.c_str());
  const auto* known = avcodec_find_encoder_by_name(wanted.encoder.c_str())->pix_fmts;
  std::string names;
  for (; known && *known != AV_PIX_FMT_NONE; ++known) {
    if (*known == format) return format;
    names += (names.empty() ? "" : ", ") + std::string(name_of(*known));
  }
  if (format != AV_PIX_FMT_NONE && names.empty()) return format;
  throw Error(ErrorKind::Usage, "pix_fmt",
              fmt::format("'{}' is no pixel format of {}: it takes {}", wanted.pixel_format,
                          wanted.encoder, names));
}

void FileEncoder::open_pictures(const VideoOptions::Pictures& wanted) {
  pictures_.emplace(output_, wanted.encoder);
  auto* codec = pictures_->codec();
  codec->pix_fmt = pixel_format(wanted);
  const auto* form = av_pix_fmt_desc_get(codec->pix_fmt);
  int across = 1 << form->log2_chroma_w, down = 1 << form->log2_chroma_h;
  if (wanted.width < 1 || wanted.height < 1 || wanted.width % across || wanted.height % down)
    throw Error(ErrorKind::Usage, where_,
                fmt::format("has frames of {} x {}; {} in {} takes widths that are multiples of {} "
                            "and heights that are multiples of {}: crop or scale the images, to {} "
                            "x {} say",
                            wanted.width, wanted.height, wanted.encoder, wanted.pixel_format,
                            across, down, std::max(wanted.width / across, 1) * across,
                            std::max(wanted.height / down, 1) * down));
  codec->width = wanted.width;
  codec->height = wanted.height;
  codec->time_base = {wanted.rate.denominator, wanted.rate.numerator};
  codec->framerate = {wanted.rate.numerator, wanted.rate.denominator};
  codec->bit_rate = wanted.bit_rate;
  codec->thread_count = 0;  // as many as there are processors
  bool yuv = (form->flags & AV_PIX_FMT_FLAG_RGB) == 0;
  if (wanted.colours != Colours::Unmarked && yuv) {
    auto marks = marks_of(wanted.colours);
    codec->colorspace = marks.space;
    codec->color_primaries = marks.primaries;
    codec->color_trc = marks.transfer;
    codec->color_range = AVCOL_RANGE_MPEG;
  }
  if (wanted.tag.size() == 4)
    codec->codec_tag = MKTAG(wanted.tag[0], wanted.tag[1], wanted.tag[2], wanted.tag[3]);
  Settings settings;
  for (const auto& [name, value] : wanted.settings) settings.set(name.c_str(), value.c_str());
  pictures_->open(settings);
  frame_.reset(av_frame_alloc());
  if (!frame_) throw std::bad_alloc();
}

/// Into frame_, in the encoder's pixel format.
void FileEncoder::scale(const FrameView& picture) {
  auto* codec = pictures_->codec();
  if (!scaler_ || frame_->format != codec->pix_fmt) {
    frame_->format = codec->pix_fmt;
    frame_->width = codec->width;
    frame_->height = codec->height;
    frame_->colorspace = codec->colorspace;
    frame_->color_range = codec->color_range;
    frame_->color_primaries = codec->color_primaries;
    frame_->color_trc = codec->color_trc;
    output_.check(av_frame_get_buffer(frame_.get(), 0), "needs more memory than there is");
  }
  // The encoder may still hold what the frame held before.
  output_.check(av_frame_make_writable(frame_.get()), "needs more memory than there is");
  auto* scaler = sws_getCachedContext(
      scaler_.release(), picture.width, picture.height, source_format(picture), codec->width,
      codec->height, codec->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND, nullptr, nullptr, nullptr);
  scaler_.reset(scaler);
  if (!scaler)
    throw Error(ErrorKind::Usage, "pix_fmt",
                fmt::format("RGB cannot be converted to {}", name_of(codec->pix_fmt)));
  constexpr int one = 1 << 16;
  const int* matrix = sws_getCoefficients(marks_of(options_.pictures->colours).matrix);
  sws_setColorspaceDetails(scaler, sws_getCoefficients(SWS_CS_DEFAULT), 1, matrix, 0, 0, one, one);
  const std::uint8_t* rows[] = {static_cast<const std::uint8_t*>(picture.pixels)};
  const int steps[] = {static_cast<int>(picture.row_bytes())};
  output_.check(sws_scale(scaler, rows, steps, 0, picture.height, frame_->data, frame_->linesize),
                "cannot be converted");
}

}  // namespace

std::unique_ptr<Encoder> make_encoder(ByteSink& sink, const VideoOptions& options, Sound sound,
                                      const std::string& where) {
  return std::make_unique<FileEncoder>(sink, options, std::move(sound), where);
}

}  // namespace distorch::media::ffmpeg
