// What HyVideoSampler may be told beside prompts.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "distorch/base/error.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::hyvideo {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::number;
using graph::text;
using graph::Value;

namespace {

constexpr const char *kApart = "STG-A", *kResidual = "STG-R";

void run_weak(Call& call) {
  call.out(0, Value::of("STGARGS", WeakBlock{.apart = call.text("stg_mode") == kApart,
                                             .block = call.integer("stg_block_idx"),
                                             .scale = call.number("stg_scale"),
                                             .start = call.number("stg_start_percent"),
                                             .end = call.number("stg_end_percent")}));
}

void run_tea(Call& call) {
  call.out(
      0, Value::of("TEACACHEARGS", TeaCache{.threshold = call.number("rel_l1_thresh"),
                                            .on_device = call.text("cache_device") == "main_device",
                                            .start = call.integer("start_step"),
                                            .end = call.integer("end_step")}));
}

void run_enhance(Call& call) {
  call.out(0, Value::of("FETAARGS", Enhance{.weight = call.number("weight"),
                                            .singles = call.boolean("single_blocks"),
                                            .doubles = call.boolean("double_blocks"),
                                            .start = call.number("start_percent"),
                                            .end = call.number("end_percent")}));
}

void run_context(Call& call) {
  call.out(0, Value::of("HYVIDCONTEXT",
                        wan_wrapper::ContextChoice{.schedule = call.text("context_schedule"),
                                                   .frames = call.integer("context_frames"),
                                                   .stride = call.integer("context_stride"),
                                                   .overlap = call.integer("context_overlap"),
                                                   .free_noise = call.boolean("freenoise")}));
}

void run_loop(Call& call) {
  call.out(0, Value::of("LOOPARGS", wan_wrapper::Loop{.skip = call.integer("shift_skip"),
                                                      .start = call.number("start_percent"),
                                                      .end = call.number("end_percent")}));
}

void run_frequencies(Call& call) {
  call.out(0, Value::of("FRESCA_ARGS", Frequencies{.low = call.number("fresca_scale_low"),
                                                   .high = call.number("fresca_scale_high"),
                                                   .cutoff = call.integer("fresca_freq_cutoff")}));
}

/// Numbers with commas between them.
void add_blocks(const Call& call, const char* input, std::set<std::string>& blocks) {
  const auto list = call.text(input);
  for (std::size_t first = 0; first < list.size();) {
    const auto end = std::min(list.find(',', first), list.size());
    auto one = list.substr(first, end - first);
    std::erase(one, ' ');
    int index = 0;
    const auto [stopped, problem] = std::from_chars(one.data(), one.data() + one.size(), index);
    if (problem != std::errc{} || stopped != one.data() + one.size() || index < 0)
      throw Error(ErrorKind::Usage, call.place(),
                  fmt::format("input '{}' is \"{}\", and has to be numbers of blocks with commas "
                              "between them",
                              input, list));
    blocks.insert(fmt::format("{}.{}", input, index));
    first = end + 1;
  }
}

void run_skipped(Call& call) {
  SkippedBlocks skipped{{}, call.number("start_percent"), call.number("end_percent")};
  for (const char* kind : {"double_blocks", "single_blocks"})
    add_blocks(call, kind, skipped.blocks);
  call.out(0, Value::of("SLGARGS", std::move(skipped)));
}

graph::Input percent(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
}

graph::Input frames(const char* name, std::int64_t usual, std::int64_t least, std::int64_t most) {
  return integer(name, {.def = usual, .min = least, .max = most, .step = 1});
}

graph::Input scale(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 10.0, .step = 0.01});
}

}  // namespace

void add_setting_nodes(graph::Catalog& catalog, App&) {
  auto add = [&](graph::NodeType node, const char* description) {
    node.description = description;
    catalog.add(std::move(node));
  };
  add(setting("HyVideoSTG", "HunyuanVideo STG",
              {choice("stg_mode", {kApart, kResidual}), frames("stg_block_idx", 0, -1, 39),
               scale("stg_scale", 1.0), percent("stg_start_percent", 0.0),
               percent("stg_end_percent", 1.0)},
              {"STGARGS", "stg_args"}, run_weak),
      "Leads the video away from what the model makes where one of its single blocks is weakened.");
  add(setting("HyVideoTeaCache", "HunyuanVideo TeaCache",
              {number("rel_l1_thresh",
                      {.def = 0.15,
                       .min = 0.0,
                       .max = 1.0,
                       .step = 0.01,
                       .tooltip = "Higher leaves more steps out and changes the video more."}),
               choice("cache_device", {"main_device", "offload_device"}, {.def = "offload_device"}),
               frames("start_step", 0, 0, 100), frames("end_step", -1, -1, 100)},
              {"TEACACHEARGS", "teacache_args"}, run_tea),
      "Leaves steps out while what goes into the blocks changes little, and takes what they added "
      "before in their place.");
  add(setting("HyVideoEnhanceAVideo", "HunyuanVideo Enhance A Video",
              {number("weight", {.def = 2.0, .min = 0, .max = 100, .step = 0.01}),
               boolean("single_blocks", {.def = true}), boolean("double_blocks", {.def = true}),
               percent("start_percent", 0.0), percent("end_percent", 1.0)},
              {"FETAARGS", "feta_args"}, run_enhance),
      "Frames look at each other more than the model was trained to.");
  add(setting(
          "HyVideoContextOptions", "HunyuanVideo Context Options",
          {choice("context_schedule", {"uniform_standard", "uniform_looped", "static_standard"}),
           frames("context_frames", 65, 2, 1000), frames("context_stride", 4, 4, 100),
           frames("context_overlap", 4, 4, 100), boolean("freenoise", {.def = true})},
          {"HYVIDCONTEXT", "context_options"}, run_context),
      "A long video is computed in windows of frames that lie over each other.");
  add(setting("HyVideoLoopArgs", "HyVideo Loop Args",
              {integer("shift_skip", {.def = 6, .min = 0}), percent("start_percent", 0.0),
               percent("end_percent", 1.0)},
              {"LOOPARGS", "loop_args"}, run_loop),
      "The end of the video meets its start.");
  add(setting("HunyuanVideoFresca", "HunyuanVideo Fresca",
              {scale("fresca_scale_low", 1.0), scale("fresca_scale_high", 1.25),
               integer("fresca_freq_cutoff", {.def = 20, .min = 0, .max = 10000, .step = 1})},
              {"FRESCA_ARGS", "fresca_args"}, run_frequencies),
      "Coarse and fine parts of the guidance count differently.");
  add(setting("HunyuanVideoSLG", "HunyuanVideo SLG",
              {text("double_blocks", {.def = ""}), text("single_blocks", {.def = "20"}),
               percent("start_percent", 0.4), percent("end_percent", 0.8)},
              {"SLGARGS", "slg_args"}, run_skipped),
      "The negative prompt is computed without these blocks.");
}

}  // namespace distorch::nodes::hyvideo
