// Videos from frames and sound, and back.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/video.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_video";

void run_create(Call& call) {
  Video video;
  video.images = image_input(call, "images");
  if (call.has("audio")) video.audio = call.get<Audio>("audio");
  video.rate = media::rate_of(call.number("fps"));
  if (call.has("bit_depth")) video.bits = static_cast<int>(call.integer("bit_depth"));
  call.out(0, Value::of("VIDEO", std::move(video)));
}

void run_components(Call& call) {
  auto parts = parts_of(call.get<Video>("video"));
  image_out(call, 0, parts.images);
  // A silent video has no AUDIO, as in ComfyUI.
  call.out(1, parts.audio ? Value::of("AUDIO", *parts.audio) : Value::constant(nullptr));
  call.out(2, Value::constant(parts.rate.value()));
  call.out(3, Value::constant(parts.bits));
  call.out(4, Value::constant(color_space_name(parts.colours)));
}

/// Frames in memory are cut at whole frames.
Video slice_of_frames(const Video& video, double start, double duration, double seconds) {
  auto rate = video.rate.value();
  auto count = video.images.size(0);
  auto from = std::clamp<std::int64_t>(std::llround(start * rate), 0, count);
  auto frames = duration > 0 ? std::llround(std::min(duration, seconds) * rate) : count;
  Video part = video;
  part.images = video.images.narrow(0, from, std::clamp<std::int64_t>(frames, 0, count - from));
  if (!video.audio) return part;
  const auto& waveform = video.audio->waveform;
  auto sample_rate = video.audio->rate;
  auto samples = waveform.size(2);
  auto first = std::clamp<std::int64_t>(std::llround(start * sample_rate), 0, samples);
  auto wanted = duration > 0 ? std::llround(duration * sample_rate) : samples;
  part.audio->waveform =
      waveform.narrow(2, first, std::clamp<std::int64_t>(wanted, 0, samples - first));
  return part;
}

void run_slice(Call& call) {
  const auto& video = call.get<Video>("video");
  auto start = call.number("start_time"), duration = call.number("duration");
  auto seconds = facts_of(video).seconds;
  if (start < 0) start = std::max(seconds + start, 0.0);
  constexpr double slack = 1e-6;  // seconds, of sums of decimal numbers
  if (call.boolean("strict_duration") && seconds - start + slack < duration)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("duration: {} s from second {} on are not there, the video has {} s",
                            duration, start, seconds));
  if (start >= seconds && seconds > 0)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("start_time: second {} is behind the end of the video, which has {} s",
                            start, seconds));
  if (video.file.empty())
    return call.out(0, Value::of("VIDEO", slice_of_frames(video, start, duration, seconds)));
  Video part = video;
  part.range.start = video.range.start + start;
  part.range.duration = duration;
  if (video.range.duration > 0) {
    auto left = video.range.duration - start;
    part.range.duration = duration > 0 ? std::min(duration, left) : left;
  }
  call.out(0, Value::of("VIDEO", std::move(part)));
}

}  // namespace

void add_video_part_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "CreateVideo",
      .display_name = "Create Video",
      .category = "video",
      .description = "Makes a video of frames, with sound where it is linked.",
      .python_module = kModule,
      .inputs = {link("images", "IMAGE", {.tooltip = "The frames."}),
                 number("fps", {.def = 30.0, .min = 1.0, .max = 120.0, .step = 1.0}),
                 optional(link("audio", "AUDIO", {.tooltip = "What is heard."})),
                 optional(
                     integer("bit_depth", {.def = 8,
                                           .min = 8,
                                           .max = 10,
                                           .step = 2,
                                           .display = "number",
                                           .tooltip = "Bits of a channel in the file. With 10 soft "
                                                      "gradients show no bands, where the player "
                                                      "understands it."}))},
      .outputs = {"VIDEO"},
      .newer_schema = true,
      .run = run_create,
  });
  catalog.add({
      .name = "GetVideoComponents",
      .display_name = "Get Video Components",
      .category = "video",
      .description = "Gives the frames, the sound and the rate of a video.",
      .python_module = kModule,
      .inputs = {link("video", "VIDEO", {.tooltip = "What is taken apart."})},
      .outputs = {{"IMAGE", "images"},
                  {"AUDIO", "audio"},
                  {"FLOAT", "fps"},
                  {"INT", "bit_depth"},
                  {"COMBO", "color_space"}},
      .newer_schema = true,
      .run = run_components,
  });
  catalog.add({
      .name = "Video Slice",
      .display_name = "Trim Video",
      .category = "video",
      .description = "Takes a part of a video.",
      .python_module = kModule,
      .inputs =
          {link("video", "VIDEO"),
           number("start_time",
                  {.def = 0.0,
                   .min = -100000.0,
                   .max = 100000.0,
                   .step = 0.001,
                   .tooltip = "Where the part begins, in seconds; below 0 counted from the end."}),
           number("duration", {.def = 0.0,
                               .min = 0.0,
                               .step = 0.001,
                               .tooltip = "How long it is, in seconds; 0: to the end."}),
           boolean("strict_duration",
                   {.def = false,
                    .tooltip = "A video that is too short is an error then, and else gives what it "
                               "has."})},
      .outputs = {"VIDEO"},
      .newer_schema = true,
      .run = run_slice,
  });
}

}  // namespace distorch::nodes
