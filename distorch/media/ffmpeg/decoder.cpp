#include "distorch/media/ffmpeg/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "distorch/base/text.h"

namespace distorch::media::ffmpeg {

namespace {

/// The EXIF orientation that turns what a display matrix turns; 1: nothing.
int orientation_of(const AVStream* stream) {
  std::size_t size = 0;
  const auto* bytes = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (!bytes || size < 9 * sizeof(std::int32_t)) return 1;
  const auto* matrix = reinterpret_cast<const std::int32_t*>(bytes);
  // Signs of a, b, c, d: x' = a x + c y, y' = b x + d y.
  auto sign = [&](int i) { return matrix[i] > 0 ? 1 : matrix[i] < 0 ? -1 : 0; };
  const int turn[4] = {sign(0), sign(1), sign(3), sign(4)};
  constexpr int known[8][4] = {{1, 0, 0, 1}, {-1, 0, 0, 1}, {-1, 0, 0, -1}, {1, 0, 0, -1},
                               {0, 1, 1, 0}, {0, 1, -1, 0}, {0, -1, -1, 0}, {0, -1, 1, 0}};
  for (int i = 0; i < 8; ++i)
    if (std::equal(turn, turn + 4, known[i])) return i + 1;
  return 1;
}

Colours colours_of(AVColorTransferCharacteristic transfer) {
  switch (transfer) {
    case AVCOL_TRC_BT709: return Colours::Bt709;
    case AVCOL_TRC_IEC61966_2_1: return Colours::Srgb;
    case AVCOL_TRC_ARIB_STD_B67: return Colours::Hlg;
    case AVCOL_TRC_SMPTE2084: return Colours::Pq;
    default: return Colours::Unmarked;
  }
}

class FileDecoder : public Decoder {
 public:
  FileDecoder(ByteSource& source, const std::string& where) : source_(source), where_(where) {
    open();
    read_facts();
  }
  const VideoFacts& facts() const override { return facts_; }
  void frames(TimeRange range, const TakeVideoFrame& take) override;
  Sound sound(TimeRange range) override;

 private:
  void open();
  void read_facts();
  void go_to(AVStream* FileDecoder::*stream, double start);
  void read_only(AVStream* FileDecoder::*stream);
  template <class Take>
  void decode(AVStream* FileDecoder::*stream, const TimeRange& range, Take take);
  void check_whole(std::int64_t packets, double last);
  Image picture_of(AVFrame& frame);
  void append(Sound& sound, Held<SwrContext>& resampler, AVFrame& frame);

  ByteSource& source_;
  std::string where_;
  std::optional<Input> input_;
  AVStream* pictures_ = nullptr;
  AVStream* sounds_ = nullptr;
  int orientation_ = 1;
  VideoFacts facts_;
  Held<SwsContext> scaler_;
  bool used_ = false;
};

/// Opens the file at its start.
void FileDecoder::open() {
  input_.emplace(source_, where_);
  pictures_ = sounds_ = nullptr;
  auto* format = input_->get();
  for (unsigned i = 0; i < format->nb_streams; ++i) {
    auto* stream = format->streams[i];
    auto kind = stream->codecpar->codec_type;
    bool cover = (stream->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0;
    if (kind == AVMEDIA_TYPE_VIDEO && !cover && !pictures_) pictures_ = stream;
  }
  int best = av_find_best_stream(format, AVMEDIA_TYPE_AUDIO, -1, -1, nullptr, 0);
  if (best >= 0) sounds_ = format->streams[best];
  if (!pictures_ && !sounds_)
    throw Error(ErrorKind::Format, where_, "holds neither pictures nor sound");
  for (unsigned i = 0; i < format->nb_streams; ++i)
    if (format->streams[i] != pictures_ && format->streams[i] != sounds_)
      format->streams[i]->discard = AVDISCARD_ALL;
}

void FileDecoder::read_facts() {
  auto* format = input_->get();
  facts_.container = format->iformat->name;
  if (format->duration > 0) facts_.seconds = static_cast<double>(format->duration) / AV_TIME_BASE;
  if (pictures_) {
    const auto& codec = *pictures_->codecpar;
    check_size(static_cast<std::uint64_t>(std::max(codec.width, 0)),
               static_cast<std::uint64_t>(std::max(codec.height, 0)), where_);
    facts_.has_pictures = true;
    facts_.codec = avcodec_get_name(codec.codec_id);
    orientation_ = orientation_of(pictures_);
    bool lies = orientation_ >= 5;
    facts_.width = lies ? codec.height : codec.width;
    facts_.height = lies ? codec.width : codec.height;
    if (const auto* pixels = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(codec.format)))
      facts_.bits = pixels->comp[0].depth;
    facts_.colours = colours_of(codec.color_trc);
    auto rate =
        pictures_->avg_frame_rate.num > 0 ? pictures_->avg_frame_rate : pictures_->r_frame_rate;
    if (rate.num > 0 && rate.den > 0) facts_.rate = {rate.num, rate.den};
    facts_.frames = pictures_->nb_frames;
    if (facts_.seconds == 0 && facts_.frames > 0)
      facts_.seconds = static_cast<double>(facts_.frames) / facts_.rate.value();
  }
  if (sounds_) {
    facts_.has_sound = true;
    facts_.sound_codec = avcodec_get_name(sounds_->codecpar->codec_id);
    facts_.sound_rate = sounds_->codecpar->sample_rate;
    facts_.sound_channels = sounds_->codecpar->ch_layout.nb_channels;
  }
  // Ogg has its texts at the stream.
  const AVDictionaryEntry* entry = nullptr;
  for (auto* texts : {format->metadata, sounds_ ? sounds_->metadata : nullptr})
    for (entry = nullptr; (entry = av_dict_get(texts, "", entry, AV_DICT_IGNORE_SUFFIX));)
      facts_.texts.push_back({lower(entry->key), entry->value});
}

/// Packets of the others are left out.
void FileDecoder::read_only(AVStream* FileDecoder::*stream) {
  for (auto* other : {pictures_, sounds_})
    if (other) other->discard = other == this->*stream ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
}

/// To the start, or before that second. Not every container can be read from everywhere: what comes
/// before is then decoded too.
void FileDecoder::go_to(AVStream* FileDecoder::*stream, double start) {
  if (used_) open();
  used_ = true;
  read_only(stream);
  if (start <= 0) return;
  auto begin = input_->get()->start_time == AV_NOPTS_VALUE ? 0 : input_->get()->start_time;
  // No clip is longer, and the product has to fit.
  auto wanted = std::min(start, 1e9);
  if (input_->seek(begin + std::llround(wanted * AV_TIME_BASE))) return;
  open();
  read_only(stream);
}

/// Gives the frames of the range, and some before, to take(AVFrame&, seconds), in order.
template <class Take>
void FileDecoder::decode(AVStream* FileDecoder::*stream, const TimeRange& range, Take take) {
  go_to(stream, range.start);
  StreamDecoder decoder(*input_, this->*stream, where_);
  Held<AVPacket> packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  double last = 0;
  auto give = [&](AVFrame& frame) {
    last = decoder.seconds();
    return take(frame, last);
  };
  std::int64_t packets = 0;
  while (input_->read(packet.get())) {
    bool ours = packet->stream_index == decoder.stream()->index;
    packets += ours ? 1 : 0;
    bool go_on = !ours || decoder.decode(packet.get(), give);
    av_packet_unref(packet.get());
    if (!go_on) return;
  }
  if (!decoder.decode(nullptr, give)) return;
  if (range.start <= 0 && this->*stream == pictures_) check_whole(packets, last);
}

/// Whether as much came as the file promises: in MP4 by its index, in Matroska by the length of the
/// stream.
void FileDecoder::check_whole(std::int64_t packets, double last) {
  bool indexed = std::string_view(input_->get()->iformat->name).starts_with("mov");
  auto promised = indexed ? avformat_index_get_entries_count(pictures_) : 0;
  if (packets < promised)
    throw Error(ErrorKind::Format, where_,
                fmt::format("is cut short: of {} frames {} are there", promised, packets));
  const auto* said = av_dict_get(pictures_->metadata, "DURATION", nullptr, 0);
  int hours = 0, minutes = 0;
  double seconds = 0;
  if (!said || std::sscanf(said->value, "%d:%d:%lf", &hours, &minutes, &seconds) != 3) return;
  seconds += 3600.0 * hours + 60.0 * minutes;
  // Rates may vary.
  auto slack = std::max(0.25, 3 / facts_.rate.value());
  if (last + 1 / facts_.rate.value() + slack < seconds)
    throw Error(ErrorKind::Format, where_,
                fmt::format("is cut short: it ends after {:.2f} of {:.2f} s", last, seconds));
}

Image FileDecoder::picture_of(AVFrame& frame) {
  check_size(static_cast<std::uint64_t>(frame.width), static_cast<std::uint64_t>(frame.height),
             where_);
  auto format = static_cast<AVPixelFormat>(frame.format);
  // As PyAV converts, which ComfyUI reads with: bit for bit the same on the same processor.
  auto* scaler =
      sws_getCachedContext(scaler_.release(), frame.width, frame.height, format, frame.width,
                           frame.height, AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr, nullptr);
  scaler_.reset(scaler);
  if (!scaler)
    throw Error(
        ErrorKind::Format, where_,
        fmt::format("has pixels of the form {}, which cannot be converted", name_of(format)));
  bool named = frame.colorspace != AVCOL_SPC_UNSPECIFIED && frame.colorspace != AVCOL_SPC_RGB;
  const int* matrix = sws_getCoefficients(named ? frame.colorspace : SWS_CS_DEFAULT);
  int full = frame.color_range == AVCOL_RANGE_JPEG ? 1 : 0;
  constexpr int one = 1 << 16;
  sws_setColorspaceDetails(scaler, matrix, full, sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, one,
                           one);
  auto image = blank_image(frame.width, frame.height, 3);
  // Vector instructions write whole blocks: rows that end elsewhere go through a wider picture.
  Held<AVFrame> wide(av_frame_alloc());
  if (!wide) throw std::bad_alloc();
  wide->format = AV_PIX_FMT_RGB24;
  wide->width = frame.width;
  wide->height = frame.height;
  input_->check(av_frame_get_buffer(wide.get(), 0), "needs more memory than there is");
  input_->check(
      sws_scale(scaler, frame.data, frame.linesize, 0, frame.height, wide->data, wide->linesize),
      "cannot be converted to RGB");
  for (int y = 0; y < frame.height; ++y)
    std::copy_n(wide->data[0] + static_cast<std::ptrdiff_t>(y) * wide->linesize[0],
                image.row_bytes(),
                image.pixels.data() + static_cast<std::size_t>(y) * image.row_bytes());
  return upright(std::move(image), orientation_);
}

void FileDecoder::frames(TimeRange range, const TakeVideoFrame& take) {
  if (!pictures_) throw Error(ErrorKind::Format, where_, "holds no pictures, only sound");
  auto end =
      range.duration > 0 ? range.start + range.duration : std::numeric_limits<double>::infinity();
  // Times are rounded to the units of the file.
  auto unit = av_q2d(pictures_->time_base) / 2;
  decode(&FileDecoder::pictures_, range, [&](AVFrame& frame, double seconds) {
    if (seconds < range.start - unit) return true;
    if (seconds >= end - unit) return false;
    return take(picture_of(frame), seconds);
  });
}

/// The samples of a frame as floats.
void FileDecoder::append(Sound& sound, Held<SwrContext>& resampler, AVFrame& frame) {
  if (!resampler) {
    SwrContext* made = nullptr;
    input_->check(
        swr_alloc_set_opts2(&made, &frame.ch_layout, AV_SAMPLE_FMT_FLTP, frame.sample_rate,
                            &frame.ch_layout, static_cast<AVSampleFormat>(frame.format),
                            frame.sample_rate, 0, nullptr),
        "has sound that cannot be converted");
    resampler.reset(made);
    input_->check(swr_init(made), "has sound that cannot be converted");
    sound.rate = frame.sample_rate;
    sound.channels.resize(static_cast<std::size_t>(frame.ch_layout.nb_channels));
  }
  if (frame.ch_layout.nb_channels != static_cast<int>(sound.channels.size()) ||
      frame.sample_rate != sound.rate)
    throw Error(ErrorKind::Format, where_, "has sound that changes its form in the middle");
  auto before = sound.length();
  auto count = static_cast<std::size_t>(frame.nb_samples);
  if ((before + count) * sound.channels.size() > sample_limit)
    throw Error(ErrorKind::Format, where_,
                fmt::format("has sound of more than {} samples", sample_limit));
  std::vector<std::uint8_t*> planes;
  for (auto& channel : sound.channels) {
    channel.resize(before + count);
    planes.push_back(reinterpret_cast<std::uint8_t*>(channel.data() + before));
  }
  input_->check(
      swr_convert(resampler.get(), planes.data(), frame.nb_samples,
                  const_cast<const std::uint8_t**>(frame.extended_data), frame.nb_samples),
      "has sound that cannot be converted");
}

Sound FileDecoder::sound(TimeRange range) {
  Sound sound;
  if (!sounds_) return sound;
  Held<SwrContext> resampler;
  auto end =
      range.duration > 0 ? range.start + range.duration : std::numeric_limits<double>::infinity();
  double first = -1;
  // The first packet after a jump is not decoded whole.
  constexpr double ahead = 0.2;
  TimeRange decoded{range.start > ahead ? range.start - ahead : 0, 0};
  decode(&FileDecoder::sounds_, decoded, [&](AVFrame& frame, double seconds) {
    auto length = static_cast<double>(frame.nb_samples) / std::max(frame.sample_rate, 1);
    if (seconds + length <= range.start) return true;
    if (seconds >= end) return false;
    if (first < 0) first = seconds;
    append(sound, resampler, frame);
    return true;
  });
  if (sound.channels.empty()) return sound;
  // Whole packets were decoded; the range begins and ends within them.
  auto skipped = std::clamp<std::int64_t>(std::llround((range.start - first) * sound.rate), 0,
                                          static_cast<std::int64_t>(sound.length()));
  auto left = static_cast<std::int64_t>(sound.length()) - skipped;
  if (range.duration > 0)
    left = std::min<std::int64_t>(left, std::llround(range.duration * sound.rate));
  for (auto& channel : sound.channels) {
    channel.erase(channel.begin(), channel.begin() + skipped);
    channel.resize(static_cast<std::size_t>(left));
  }
  return sound;
}

}  // namespace

std::unique_ptr<Decoder> open_decoder(ByteSource& source, const std::string& where) {
  return std::make_unique<FileDecoder>(source, where);
}

}  // namespace distorch::media::ffmpeg
