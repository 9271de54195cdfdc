// What WanVideoSampler is told beside model, text and pictures.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::wan_wrapper {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Sigmas;

namespace {

CacheChoice cache_of(Call& call, CacheChoice::Kind kind, const char* threshold) {
  CacheChoice choice{.kind = kind, .threshold = call.number(threshold)};
  choice.start = call.integer("start_step");
  choice.end = call.integer("end_step");
  choice.on_device = call.text("cache_device") == "main_device";
  return choice;
}

void run_tea(Call& call) {
  auto choice = cache_of(call, CacheChoice::Kind::Tea, "rel_l1_thresh");
  choice.coefficients = call.boolean("use_coefficients");
  choice.parts = call.text("mode") == "e0";
  call.out(0, Value::of("CACHEARGS", choice));
}

void run_mag(Call& call) {
  auto choice = cache_of(call, CacheChoice::Kind::Mag, "magcache_thresh");
  choice.most = call.integer("magcache_K");
  call.out(0, Value::of("CACHEARGS", choice));
}

void run_easy(Call& call) {
  call.out(0, Value::of("CACHEARGS", cache_of(call, CacheChoice::Kind::Easy, "easycache_thresh")));
}

void run_slg(Call& call) {
  SkippedLayers skipped{{}, call.number("start_percent"), call.number("end_percent")};
  const auto text = call.text("blocks");
  for (std::size_t first = 0; first <= text.size();) {
    auto end = std::min(text.find(',', first), text.size());
    const auto one = text.substr(first, end - first);
    const auto from = one.find_first_not_of(" \t"), to = one.find_last_not_of(" \t");
    const auto digits = from == std::string::npos ? "" : one.substr(from, to + 1 - from);
    constexpr std::size_t longest = 6;
    if (digits.empty() || digits.size() > longest ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      throw Error(ErrorKind::Usage, call.place(),
                  fmt::format("input 'blocks' wants numbers of layers with commas between them, "
                              "such as 9,10, and got '{}'",
                              text));
    skipped.layers.push_back(std::stoll(digits));
    first = end + 1;
  }
  call.out(0, Value::of("SLGARGS", std::move(skipped)));
}

void run_enhance(Call& call) {
  call.out(0, Value::of("FETAARGS", Enhance{call.number("weight"), call.number("start_percent"),
                                            call.number("end_percent")}));
}

/// Refuses what would change the video and is not here, in place of leaving it out.
[[noreturn]] void refuse(const Call& call, const char* input) {
  throw Error(ErrorKind::Usage, call.place(),
              fmt::format("input '{}' is not supported by distorch yet: leave it empty", input));
}

void run_context(Call& call) {
  if (call.has("reference_latent")) refuse(call, "reference_latent");
  call.out(0, Value::of("WANVIDCONTEXT",
                        ContextChoice{.schedule = call.text("context_schedule"),
                                      .frames = call.integer("context_frames"),
                                      .stride = call.integer("context_stride"),
                                      .overlap = call.integer("context_overlap"),
                                      .free_noise = call.boolean("freenoise"),
                                      .pyramid = call.text("fuse_method") == "pyramid"}));
}

void run_loop(Call& call) {
  call.out(0, Value::of("LOOPARGS", Loop{call.integer("shift_skip"), call.number("start_percent"),
                                         call.number("end_percent")}));
}

void run_experimental(Call& call) {
  constexpr const char* split_steps = "video_attention_split_steps";
  if (!call.text(split_steps).empty()) refuse(call, split_steps);
  call.out(0, Value::of("EXPERIMENTALARGS",
                        Experimental{.zero_star = call.boolean("cfg_zero_star"),
                                     .zero_init = call.boolean("use_zero_init"),
                                     .zero_star_steps = call.integer("zero_star_steps"),
                                     .frequencies = call.boolean("use_fresca"),
                                     .scale_low = call.number("fresca_scale_low"),
                                     .scale_high = call.number("fresca_scale_high"),
                                     .cutoff = call.integer("fresca_freq_cutoff"),
                                     .tangential = call.boolean("use_tcfg"),
                                     .raag = call.number("raag_alpha"),
                                     .both_ways = call.boolean("bidirectional_sampling"),
                                     .rescaled_score = call.boolean("temporal_score_rescaling"),
                                     .score_k = call.number("tsr_k"),
                                     .score_sigma = call.number("tsr_sigma")}));
}

/// Scales of guidance, one a step: 1 but between two parts of the run.
std::vector<double> cfg_schedule(const Call& call) {
  constexpr double cents = 100.0;
  const auto steps = call.integer("steps");
  const auto n = static_cast<double>(steps);
  auto place = [&](const char* part) {
    return std::min(static_cast<std::int64_t>(n * call.number(part)), steps - 1);
  };
  const auto first = place("start_percent"), last = place("end_percent");
  const auto from = call.number("cfg_scale_start"), to = call.number("cfg_scale_end");
  const auto curve = call.text("interpolation");
  std::vector<double> scales(static_cast<std::size_t>(steps), 1.0);
  for (auto i = first; i <= last; ++i) {
    const double u =
        last == first ? 0 : static_cast<double>(i - first) / static_cast<double>(last - first);
    const double part = curve == "ease_in" ? u * u : curve == "ease_out" ? u * (2 - u) : u;
    // Python rounds halves to even.
    scales[static_cast<std::size_t>(i)] =
        std::nearbyint((from + (to - from) * part) * cents) / cents;
  }
  if (call.number("start_percent") > 0) scales.front() = 1.0;
  return scales;
}

void run_cfg_schedule(Call& call) { call.out(0, Value::of("FLOAT", Json(cfg_schedule(call)))); }

/// The choice of levels that "sigmas" brings; nothing where none is linked.
std::optional<Sigmas> given_sigmas(const Call& call) {
  if (!call.has("sigmas")) return std::nullopt;
  return call.get<Sigmas>("sigmas");
}

void out_schedule(Call& call, ReadySchedule ready, const sampling::WanScheduleRequest& request) {
  call.out(0, Value::of("SIGMAS", ready.schedule.sigmas));
  call.out(1, Value::of("INT", Json(request.steps)));
  call.out(2, Value::of("FLOAT", Json(request.shift)));
  call.out(3, Value::of("COMBO", std::move(ready)));
  call.out(4, call.in("start_step"));
  call.out(5, call.in("end_step"));
}

void run_scheduler(Call& call) {
  sampling::WanScheduleRequest request{.scheduler = call.text("scheduler"),
                                       .steps = call.integer("steps"),
                                       .shift = call.number("shift"),
                                       .denoise = 1.0,
                                       .given = given_sigmas(call)};
  auto whole = sampling::wan_schedule(request);
  auto part = whole.slice({call.integer("start_step"), call.integer("end_step")});
  out_schedule(call, {std::move(part), {}}, request);
}

graph::NodeType setting(const char* name, const char* title, std::vector<graph::Input> inputs,
                        graph::Output output, void (*run)(Call&)) {
  return {
      .name = name,
      .display_name = title,
      .category = kCategory,
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {std::move(output)},
      .run = run,
  };
}

graph::Input percent(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
}

void add_caches(graph::Catalog& catalog) {
  auto steps = [](std::int64_t start) {
    return std::vector<graph::Input>{
        integer("start_step", {.def = start, .min = 0, .max = 9999, .step = 1}),
        integer("end_step", {.def = -1, .min = -1, .max = 9999, .step = 1}),
        choice("cache_device", {"main_device", "offload_device"}, {.def = "offload_device"})};
  };
  auto threshold = [](const char* name, double usual, double most) {
    return number(name, {.def = usual,
                         .min = 0.0,
                         .max = most,
                         .step = 0.001,
                         .tooltip = "Higher leaves more steps out and changes the video more."});
  };
  auto add = [&](graph::NodeType node, std::int64_t start, const char* what) {
    auto more = steps(start);
    node.inputs.insert(node.inputs.end(), more.begin(), more.end());
    node.description = std::string(
                           "Leaves steps out and takes what the layers added before in "
                           "their place, ") +
                       what;
    catalog.add(std::move(node));
  };
  const graph::Output output{"CACHEARGS", "cache_args"};
  graph::NodeType tea = setting("WanVideoTeaCache", "WanVideo TeaCache",
                                {threshold("rel_l1_thresh", 0.3, 1.0)}, output, run_tea);
  auto more = steps(1);
  tea.inputs.insert(tea.inputs.end(), more.begin(), more.end());
  tea.inputs.push_back(boolean("use_coefficients", {.def = true}));
  tea.inputs.push_back(optional(choice("mode", {"e", "e0"}, {.def = "e"})));
  tea.description =
      "Leaves steps out while the embedding of the noise level changes little, and takes what the "
      "layers added before in their place.";
  catalog.add(std::move(tea));
  auto mag = setting("WanVideoMagCache", "WanVideo MagCache",
                     {threshold("magcache_thresh", 0.02, 0.3),
                      integer("magcache_K", {.def = 4,
                                             .min = 0,
                                             .max = 6,
                                             .step = 1,
                                             .tooltip = "The most steps in a row that are left "
                                                        "out."})},
                     output, run_mag);
  mag.experimental = true;
  add(std::move(mag), 1, "as long as measured magnitudes say that little is lost.");
  auto easy = setting("WanVideoEasyCache", "WanVideo EasyCache",
                      {threshold("easycache_thresh", 0.015, 1.0)}, output, run_easy);
  easy.experimental = true;
  add(std::move(easy), 10, "while what goes into the layers changes little.");
}

void add_experimental(graph::Catalog& catalog) {
  auto scale = [](const char* name, double usual, double most) {
    return number(name, {.def = usual, .min = 0.0, .max = most, .step = 0.01});
  };
  auto node = setting(
      "WanVideoExperimentalArgs", "WanVideo Experimental Args",
      {graph::text("video_attention_split_steps", {.def = ""}),
       boolean("cfg_zero_star", {.def = false}), boolean("use_zero_init", {.def = false}),
       integer("zero_star_steps", {.def = 0, .min = 0}), boolean("use_fresca", {.def = false}),
       scale("fresca_scale_low", 1.0, 10.0), scale("fresca_scale_high", 1.25, 10.0),
       integer("fresca_freq_cutoff", {.def = 20, .min = 0, .max = 10000, .step = 1}),
       boolean("use_tcfg", {.def = false}), scale("raag_alpha", 0.0, 10.0),
       boolean("bidirectional_sampling", {.def = false}),
       boolean("temporal_score_rescaling", {.def = false}), scale("tsr_k", 0.95, 100.0),
       scale("tsr_sigma", 1.0, 1.0)},
      {"EXPERIMENTALARGS", "exp_args"}, run_experimental);
  node.experimental = true;
  // Workflows that were saved before the last ones came lack them.
  for (std::size_t i = 9; i < node.inputs.size(); ++i) node.inputs[i].required = false;
  catalog.add(std::move(node));
}

void add_context(graph::Catalog& catalog) {
  catalog.add(setting(
      "WanVideoContextOptions", "WanVideo Context Options",
      {choice("context_schedule", {"uniform_standard", "uniform_looped", "static_standard"}),
       integer("context_frames", {.def = 81, .min = 2, .max = 1000, .step = 1}),
       integer("context_stride", {.def = 4, .min = 4, .max = 100, .step = 1}),
       integer("context_overlap", {.def = 16, .min = 4, .max = 100, .step = 1}),
       boolean("freenoise", {.def = true}), boolean("verbose", {.def = false}),
       optional(choice("fuse_method", {"linear", "pyramid"}, {.def = "linear"})),
       optional(link("reference_latent", "LATENT", {.extra = Json::object()}))},
      {"WANVIDCONTEXT", "context_options"}, run_context));
  catalog.add(setting("WanVideoLoopArgs", "WanVideo Loop Args",
                      {integer("shift_skip", {.def = 6, .min = 0}), percent("start_percent", 0.0),
                       percent("end_percent", 1.0)},
                      {"LOOPARGS", "loop_args"}, run_loop));
}

void add_scheduler(graph::Catalog& catalog) {
  graph::NodeType node{
      .name = "WanVideoScheduler",
      .display_name = "WanVideoScheduler",
      .category = kCategory,
      .description = "Noise levels and solver for WanVideoSampler, made before it runs.",
      .python_module = kModule,
      .inputs = {choice("scheduler", sampling::wan_schedulers(), {.def = "unipc"}),
                 integer("steps", {.def = 30, .min = 1}),
                 number("shift", {.def = 5.0, .min = 0.0, .max = 1000.0, .step = 0.01}),
                 integer("start_step", {.def = 0, .min = 0}),
                 integer("end_step", {.def = -1, .min = -1}), optional(link("sigmas", "SIGMAS"))},
      .hidden = {{"unique_id", "UNIQUE_ID"}},
      .outputs = {{"SIGMAS", "sigmas"},
                  {"INT", "steps"},
                  {"FLOAT", "shift"},
                  {"COMBO", "scheduler"},
                  {"INT", "start_step"},
                  {"INT", "end_step"}},
      .experimental = true,
      .run = run_scheduler,
  };
  catalog.add(std::move(node));
}

void add_cfg_schedule(graph::Catalog& catalog) {
  auto scale = [](const char* name) {
    return number(name, {.def = 5.0, .min = 0.0, .max = 30.0, .step = 0.01, .round = 0.01});
  };
  auto part = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01, .round = 0.01});
  };
  auto node =
      setting("CreateCFGScheduleFloatList", "Create CFG Schedule Float List",
              {integer("steps", {.def = 30, .min = 2, .max = 1000, .step = 1}),
               scale("cfg_scale_start"), scale("cfg_scale_end"),
               choice("interpolation", {"linear", "ease_in", "ease_out"}, {.def = "linear"}),
               part("start_percent", 0.0), part("end_percent", 1.0)},
              {"FLOAT", "float_list"}, run_cfg_schedule);
  node.hidden = {{"unique_id", "UNIQUE_ID"}};
  node.description =
      "A scale of guidance for each step: 1, which leaves the negative prompt out, "
      "but between two parts of the run.";
  catalog.add(std::move(node));
}

}  // namespace

void add_setting_nodes(graph::Catalog& catalog) {
  add_caches(catalog);
  catalog.add(setting("WanVideoSLG", "WanVideo SLG",
                      {graph::text("blocks", {.def = "10"}), percent("start_percent", 0.1),
                       percent("end_percent", 1.0)},
                      {"SLGARGS", "slg_args"}, run_slg));
  catalog.add(setting("WanVideoEnhanceAVideo", "WanVideo Enhance-A-Video",
                      {number("weight", {.def = 2.0, .min = 0, .max = 100, .step = 0.01}),
                       percent("start_percent", 0.0), percent("end_percent", 1.0)},
                      {"FETAARGS", "feta_args"}, run_enhance));
  add_context(catalog);
  add_experimental(catalog);
  add_scheduler(catalog);
  add_cfg_schedule(catalog);
}

}  // namespace distorch::nodes::wan_wrapper
