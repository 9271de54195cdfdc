#include "distorch/nodes/video.h"

#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/media/video_reader.h"
#include "distorch/nodes/settings.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;

Tensor to_tensor(const media::Image& image) {
  auto bytes = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                             {image.height, image.width, image.channels}, at::kByte);
  return bytes.to(at::kFloat) / 255.0;
}

Audio to_audio(const media::Sound& sound) {
  auto length = static_cast<std::int64_t>(sound.length());
  auto waveform = at::empty({1, static_cast<std::int64_t>(sound.channels.size()), length});
  for (std::size_t c = 0; c < sound.channels.size(); ++c)
    std::copy_n(sound.channels[c].data(), length,
                waveform.mutable_data_ptr<float>() + static_cast<std::int64_t>(c) * length);
  return {waveform, sound.rate};
}

media::Sound to_sound(const Audio& audio, std::int64_t item) {
  if (audio.waveform.dim() != 3 || item >= audio.waveform.size(0))
    throw Error(ErrorKind::Shape, "audio", "has a waveform that is no [batch, channels, samples]");
  media::Sound sound{audio.rate, {}};
  auto values = audio.waveform[item].to(at::kCPU, at::kFloat).contiguous();
  for (std::int64_t c = 0; c < values.size(0); ++c) {
    const auto* begin = values.const_data_ptr<float>() + c * values.size(1);
    sound.channels.emplace_back(begin, begin + values.size(1));
  }
  return sound;
}

const Audio& audio_input(const Call& call, const char* name) {
  if (!call.has(name) || !call.in(name).is<Audio>())
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("'{}' has no sound: the video that it comes from is silent", name));
  return call.get<Audio>(name);
}

namespace {

std::optional<Audio> audio_of(media::VideoReader& reader, media::TimeRange range) {
  if (!reader.facts().has_sound) return {};
  auto sound = reader.sound(range);
  if (sound.channels.empty()) return {};
  return to_audio(sound);
}

/// A start before 0 counts from the end.
media::TimeRange absolute(media::TimeRange range, const media::VideoFacts& facts) {
  if (range.start < 0) range.start = std::max(facts.seconds + range.start, 0.0);
  return range;
}

}  // namespace

VideoParts parts_of(const Video& video) {
  if (video.file.empty()) return {video.images, video.audio, video.rate, video.bits};
  media::VideoReader reader(video.file);
  const auto& facts = reader.facts();
  auto range = absolute(video.range, facts);
  std::vector<Tensor> frames;
  reader.frames(
      [&](const media::Image& image, double) {
        auto bytes = at::empty({image.height, image.width, image.channels}, at::kByte);
        std::copy_n(image.pixels.data(), image.pixels.size(),
                    bytes.mutable_data_ptr<std::uint8_t>());
        if (!frames.empty() && bytes.sizes() != frames[0].sizes())
          throw Error(ErrorKind::Format, video.file.string(),
                      "has frames of several sizes, which are no batch");
        frames.push_back(std::move(bytes));
        return true;
      },
      range);
  if (frames.empty())
    throw Error(ErrorKind::Format, video.file.string(),
                fmt::format("has no frame from second {} on", range.start));
  auto count = static_cast<std::int64_t>(frames.size());
  auto images = at::empty({count, frames[0].size(0), frames[0].size(1), 3});
  for (std::int64_t i = 0; i < count; ++i) {
    auto& frame = frames[static_cast<std::size_t>(i)];
    images[i].copy_(frame.to(at::kFloat) / 255.0);
    frame.reset();
  }
  return {images, audio_of(reader, range), facts.rate, facts.bits, facts.colours};
}

media::VideoFacts facts_of(const Video& video) {
  if (!video.file.empty()) {
    auto facts = media::VideoReader(video.file).facts();
    auto range = absolute(video.range, facts);
    auto left = std::max(facts.seconds - range.start, 0.0);
    facts.seconds = range.duration > 0 ? std::min(range.duration, left) : left;
    return facts;
  }
  media::VideoFacts facts;
  facts.has_pictures = true;
  facts.frames = video.images.size(0);
  facts.height = static_cast<int>(video.images.size(1));
  facts.width = static_cast<int>(video.images.size(2));
  facts.rate = video.rate;
  facts.bits = video.bits;
  facts.seconds = static_cast<double>(facts.frames) / video.rate.value();
  return facts;
}

namespace {

/// One frame as whole numbers 0 .. 2^bits - 1.
Tensor whole_numbers(Call& call, const Tensor& image, int bits, Rounding rounding) {
  auto values = image.to(at::kCPU, at::kFloat);
  if (!at::isfinite(values).all().item<bool>())
    throw Error(ErrorKind::Internal, call.place(),
                "the images hold NaN or infinite values, nothing was saved");
  double highest = (1 << bits) - 1;
  values = values * highest;
  if (rounding == Rounding::Nearest) values = values + 0.5;
  return values.clamp(0, highest).floor();
}

}  // namespace

media::Image picture_of(Call& call, const Tensor& image, Rounding rounding) {
  auto bytes = whole_numbers(call, image, 8, rounding).to(at::kByte).contiguous();
  auto picture =
      media::blank_image(static_cast<int>(image.size(1)), static_cast<int>(image.size(0)),
                         static_cast<int>(image.size(2)));
  std::copy_n(bytes.const_data_ptr<std::uint8_t>(), picture.pixels.size(), picture.pixels.data());
  return picture.channels == 1 ? media::to_rgb(std::move(picture)) : picture;
}

void encode_frames(Call& call, media::VideoWriter& writer, const Tensor& images,
                   const std::vector<std::int64_t>& order, int bits, Rounding rounding) {
  double done = 0;
  std::vector<std::uint16_t> deep;
  for (auto index : order) {
    if (bits <= 8) {
      writer.add(picture_of(call, images[index], rounding));
    } else {
      auto values = whole_numbers(call, images[index], 16, rounding).to(at::kInt).contiguous();
      const auto* begin = values.const_data_ptr<int>();
      deep.assign(begin, begin + values.numel());
      writer.add(media::FrameView{deep.data(), static_cast<int>(images.size(2)),
                                  static_cast<int>(images.size(1)),
                                  static_cast<int>(images.size(3)), 16});
    }
    call.progress(++done, static_cast<double>(order.size()));
  }
}

std::vector<std::int64_t> in_order(std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::string commit_numbered(media::VideoWriter& writer, const OutputPlace& place,
                            std::int64_t number, const std::string& extension) {
  while (!writer.commit_if_absent(place.folder / numbered(place.name, number, extension))) ++number;
  return numbered(place.name, number, extension);
}

std::vector<media::Text> video_texts(Call& call) {
  if (call.context<Settings>().disable_metadata) return {};
  return workflow_texts(call.prompt(), call.extra_pnginfo());
}

const char* color_space_name(media::Colours colours) {
  return colours == media::Colours::Hlg ? "HDR" : colours == media::Colours::Pq ? "HDR PQ" : "sRGB";
}

graph::Json shown_file(const std::string& file, const OutputPlace& place, const char* type) {
  return graph::Json::array({{{"filename", file}, {"subfolder", place.subfolder}, {"type", type}}});
}

const std::vector<std::string>& video_endings() {
  static const std::vector<std::string> endings = {".mp4", ".m4v", ".mov", ".webm",
                                                   ".mkv", ".avi", ".mpg", ".mpeg",
                                                   ".ogv", ".flv", ".wmv", ".3gp"};
  return endings;
}

const std::vector<std::string>& audio_endings() {
  static const std::vector<std::string> endings = {".wav",  ".mp3", ".flac", ".ogg",
                                                   ".opus", ".m4a", ".aac",  ".aiff"};
  return endings;
}

}  // namespace distorch::nodes
