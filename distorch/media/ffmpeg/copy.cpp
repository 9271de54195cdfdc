#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "distorch/media/ffmpeg/encoder.h"

namespace distorch::media::ffmpeg {

namespace {

bool is_copied(const AVStream* stream, bool with_sound) {
  auto kind = stream->codecpar->codec_type;
  bool cover = (stream->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0;
  return !cover && (kind == AVMEDIA_TYPE_VIDEO || (kind == AVMEDIA_TYPE_AUDIO && with_sound) ||
                    kind == AVMEDIA_TYPE_SUBTITLE);
}

/// Subtitles may be left behind, pictures and sound not.
bool fits(const AVFormatContext* from, const AVFormatContext* to, bool with_sound) {
  for (unsigned i = 0; i < from->nb_streams; ++i) {
    const auto& codec = *from->streams[i]->codecpar;
    if (codec.codec_type == AVMEDIA_TYPE_SUBTITLE || !is_copied(from->streams[i], with_sound))
      continue;
    if (avformat_query_codec(to->oformat, codec.codec_id, FF_COMPLIANCE_NORMAL) != 1) return false;
  }
  return true;
}

/// How the pictures are turned goes with them.
void copy_side_data(Output& output, const AVStream* from, AVStream* to) {
  std::size_t size = 0;
  const auto* matrix = av_stream_get_side_data(from, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (!matrix) return;
  auto* place = av_stream_new_side_data(to, AV_PKT_DATA_DISPLAYMATRIX, size);
  if (!place) throw std::bad_alloc();
  std::copy_n(matrix, size, place);
}

void add_streams(Input& input, Output& output, bool with_sound, std::vector<int>& to_stream) {
  auto* format = input.get();
  for (unsigned i = 0; i < format->nb_streams; ++i) {
    auto* from = format->streams[i];
    to_stream.push_back(-1);
    bool held = avformat_query_codec(output.get()->oformat, from->codecpar->codec_id,
                                     FF_COMPLIANCE_NORMAL) == 1;
    if (!is_copied(from, with_sound) || !held) continue;
    auto* to = output.add_stream();
    output.check(avcodec_parameters_copy(to->codecpar, from->codecpar), "cannot be copied");
    // Its four letters stay where the container has them for this codec.
    const auto* tags = output.get()->oformat->codec_tag;
    bool known =
        !tags || av_codec_get_id(tags, from->codecpar->codec_tag) == from->codecpar->codec_id;
    if (!known) to->codecpar->codec_tag = 0;
    to->time_base = from->time_base;
    to->avg_frame_rate = from->avg_frame_rate;
    to->sample_aspect_ratio = from->sample_aspect_ratio;
    to->disposition = from->disposition;
    copy_side_data(output, from, to);
    to_stream.back() = to->index;
  }
}

/// When the packets of each stream are to be decoded, in their order, by stream. Empty for streams
/// that say so themselves.
using DecodingTimes = std::vector<std::vector<std::int64_t>>;

/// Of packets shown at these times: in the order of showing, so much earlier that none comes late.
std::vector<std::int64_t> decoding_times(const std::vector<std::int64_t>& shown) {
  auto sorted = shown;
  std::sort(sorted.begin(), sorted.end());
  auto count = static_cast<std::int64_t>(sorted.size());
  std::int64_t delay = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    auto until = std::upper_bound(sorted.begin(), sorted.end(), shown[static_cast<std::size_t>(i)]);
    delay = std::max(delay, i + 1 - (until - sorted.begin()));
  }
  auto step =
      count > 1 ? std::max<std::int64_t>((sorted.back() - sorted.front()) / (count - 1), 1) : 1;
  std::vector<std::int64_t> times;
  for (std::int64_t i = 0; i < count; ++i)
    times.push_back(i >= delay ? sorted[static_cast<std::size_t>(i - delay)]
                               : sorted.front() - (delay - i) * step);
  return times;
}

/// Matroska keeps only when pictures are shown, and FFmpeg does not always find the other times of
/// the first ones.
DecodingTimes decoding_times(ByteSource& source, const std::string& where) {
  Input input(source, where);
  DecodingTimes shown(input.get()->nb_streams);
  if (!std::string_view(input.get()->iformat->name).starts_with("matroska")) return shown;
  std::vector<bool> lacking(shown.size());
  Held<AVPacket> packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  while (input.read(packet.get())) {
    auto index = static_cast<std::size_t>(packet->stream_index);
    if (index < shown.size() && packet->pts != AV_NOPTS_VALUE) {
      shown[index].push_back(packet->pts);
      if (packet->dts == AV_NOPTS_VALUE) lacking[index] = true;
    }
    av_packet_unref(packet.get());
  }
  for (std::size_t i = 0; i < shown.size(); ++i)
    shown[i] = lacking[i] ? decoding_times(shown[i]) : std::vector<std::int64_t>{};
  return shown;
}

/// Gives the packet its time of decoding from the list; `next` counts the packets of each stream.
void set_decoding_time(AVPacket& packet, const DecodingTimes& times,
                       std::vector<std::size_t>& next) {
  auto index = static_cast<std::size_t>(packet.stream_index);
  if (index >= times.size() || times[index].empty() || packet.pts == AV_NOPTS_VALUE) return;
  auto at = next[index]++;
  if (at < times[index].size()) packet.dts = times[index][at];
}

}  // namespace

bool copy(ByteSource& source, ByteSink& sink, const VideoOptions& options, Sound sound,
          const std::string& where) {
  auto times = decoding_times(source, where);
  std::vector<std::size_t> next(times.size());
  Input input(source, where);
  auto with_texts = options;
  const AVDictionaryEntry* entry = nullptr;
  while ((entry = av_dict_get(input.get()->metadata, "", entry, AV_DICT_IGNORE_SUFFIX))) {
    bool ours = std::any_of(options.texts.begin(), options.texts.end(),
                            [&](const Text& text) { return text.keyword == entry->key; });
    if (!ours) with_texts.texts.push_back({entry->key, entry->value});
  }
  Output output(sink, with_texts, where);
  if (!fits(input.get(), output.get(), !options.sounds)) return false;
  std::vector<int> to_stream;
  add_streams(input, output, !options.sounds, to_stream);
  std::optional<SoundEncoder> sounds;
  if (options.sounds && sound.length() > 0)
    sounds.emplace(output, *options.sounds, std::move(sound));
  output.begin();
  Held<AVPacket> packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  while (input.read(packet.get())) {
    auto index = static_cast<std::size_t>(packet->stream_index);
    set_decoding_time(*packet, times, next);
    bool copied = index < to_stream.size() && to_stream[index] >= 0;
    auto* from = input.get()->streams[index];
    auto time = static_cast<double>(packet->dts) * av_q2d(from->time_base);
    bool in_time = options.seconds <= 0 || time < options.seconds;
    if (copied && in_time && packet->dts != AV_NOPTS_VALUE) {
      auto* to = output.get()->streams[to_stream[index]];
      if (sounds) sounds->encode_until(time);
      av_packet_rescale_ts(packet.get(), from->time_base, to->time_base);
      packet->stream_index = to->index;
      packet->pos = -1;
      output.write(packet.get());
    }
    av_packet_unref(packet.get());
  }
  if (sounds) sounds->finish();
  output.end();
  return true;
}

}  // namespace distorch::media::ffmpeg
