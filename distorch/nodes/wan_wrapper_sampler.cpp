// WanVideoSampler: from noise to a video's latent.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_models.h"
#include "distorch/nodes/wan_wrapper_run.h"

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
using sampling::Latent;

namespace {

/// Inputs that belong to models and ways of sampling which are not here.
constexpr std::array<const char*, 4> kOthers = {"flowedit_args", "unianimate_poses",
                                                "multitalk_embeds", "freeinit_args"};

/// A number of a step, or a noise level in place of one.
std::int64_t step_of(const Call& call, const char* input, const sampling::WanSchedule& schedule) {
  const auto& value = call.in(input).as<Json>();
  if (!value.is_number_float()) return call.integer(input);
  const auto level = value.get<double>();
  return level > 0 && level < 1 ? schedule.step_of_level(level) : call.integer(input);
}

/// The steps that are taken, and whether the samples get noise because only a part is made anew.
void take_schedule(const Call& call, SamplerJob& job, std::int64_t width) {
  const auto& chosen = call.in("scheduler");
  const auto denoise = call.number("denoise_strength");
  if (chosen.is<ReadySchedule>()) {
    job.schedule = chosen.as<ReadySchedule>().schedule;
    job.sa_ode = chosen.as<ReadySchedule>().sa_ode;
    return;
  }
  sampling::WanScheduleRequest request{.scheduler = call.text("scheduler"),
                                       .steps = call.integer("steps"),
                                       .shift = call.number("shift"),
                                       .denoise = denoise,
                                       .width = width,
                                       .given = {}};
  if (call.has("sigmas")) request.given = call.get<sampling::Sigmas>("sigmas");
  auto whole = sampling::wan_schedule(request);
  sampling::WanSlice slice{step_of(call, "start_step", whole), step_of(call, "end_step", whole)};
  if (denoise < 1) {
    if (slice.start != 0)
      throw Error(ErrorKind::Usage, call.place(),
                  "takes either a denoise_strength below 1 or a start_step: set one of them back");
    const auto taken = static_cast<std::int64_t>(static_cast<double>(request.steps) * denoise);
    slice.start = std::max<std::int64_t>(0, request.steps - taken - 1);
    job.add_noise = true;
  }
  job.from_start = slice.start == 0;
  job.schedule = whole.slice(slice);
}

SamplerJob job_of(Call& call) {
  for (const char* name : kOthers)
    if (call.has(name))
      throw Error(ErrorKind::Usage, call.place(),
                  fmt::format("input '{}' is not supported by distorch yet: unlink it", name));
  SamplerJob job{.model = call.get<WanModel>("model"),
                 .image = call.get<ImageEmbeds>("image_embeds"),
                 .schedule = {},
                 .cfg = numbers_of_steps(call, "cfg"),
                 .seed = call.seed("seed"),
                 .riflex = call.integer("riflex_freq_index"),
                 .add_noise = call.boolean("add_noise_to_samples")};
  if (call.has("text_embeds")) job.text = call.get<TextEmbeds>("text_embeds");
  if (call.has("samples")) job.samples = latent_input(call, "samples");
  job.enhance = optional_input<Enhance>(call, "feta_args");
  job.context = optional_input<ContextChoice>(call, "context_options");
  job.cache = optional_input<CacheChoice>(call, "cache_args");
  // The name that older workflows have for it.
  if (!job.cache) job.cache = optional_input<CacheChoice>(call, "teacache_args");
  job.skipped = optional_input<SkippedLayers>(call, "slg_args");
  job.loop = optional_input<Loop>(call, "loop_args");
  job.rendered = optional_input<RenderedVideo>(call, "uni3c_embeds");
  job.speech = optional_input<SpeechEmbeds>(call, "fantasytalking_embeds");
  if (job.speech && job.text.prompts.size() > 1 && !job.context) {
    // As the pack has it.
    log::warn("{}: speech is not heard where several prompts share a video: leave one of them",
              call.place());
    job.speech.reset();
  }
  if (auto how = optional_input<Experimental>(call, "experimental_args")) job.experimental = *how;
  if (job.experimental.both_ways)
    throw Error(ErrorKind::Usage, call.place(),
                "bidirectional_sampling of experimental_args is not supported by distorch yet");
  const auto& network =
      dynamic_cast<const models::wan::Transformer&>(*job.model.model.loaded->network);
  take_schedule(call, job, network.config().width);
  return job;
}

/// The device that came over a socket in place of the loader's, where it is another one.
void move_to_device(Call& call, WanModel& model) {
  if (!call.node_type().find_input("compute_device") || !call.has("compute_device")) return;
  const auto device = call.text("compute_device");
  auto& models = call.context<ModelCache>();
  if (models.engine().device_for(device) == model.model.loaded->weights->options().compute) return;
  model.compute = device;
  open(model, models);
}

void run_sampler(Call& call) {
  auto job = job_of(call);
  move_to_device(call, job.model);
  auto made = sample_video(call, job);
  note(made.samples, made.notes);
  Latent latent{made.samples, {}, {}};
  if (job.samples) latent.noise_mask = job.samples->noise_mask;
  call.out(0, Value::of("LATENT", std::move(latent)));
  call.out(1, Value::of("LATENT", Latent{made.denoised, {}, {}}));
}

std::vector<graph::Input> required_inputs() {
  return {
      link("model", "WANVIDEOMODEL"),
      link("image_embeds", "WANVIDIMAGE_EMBEDS"),
      integer("steps", {.def = 30, .min = 1}),
      number("cfg", {.def = 6.0,
                     .min = 0.0,
                     .max = 30.0,
                     .step = 0.01,
                     .tooltip = "How closely to follow the prompt; over a link a list of one for "
                                "each step. 1 leaves the negative prompt out."}),
      number("shift", {.def = 5.0, .min = 0.0, .max = 1000.0, .step = 0.01}),
      integer("seed", {.def = 0, .min = 0, .max = 18446744073709551615ULL}),
      boolean("force_offload",
              {.def = true,
               .tooltip = "Weights make room here when something else needs it, either way."}),
      choice("scheduler", sampling::wan_schedulers(), {.def = "unipc"}),
      integer("riflex_freq_index", {.def = 0, .min = 0, .max = 1000, .step = 1}),
  };
}

std::vector<graph::Input> optional_inputs() {
  std::vector<graph::Input> inputs = {
      link("text_embeds", "WANVIDEOTEXTEMBEDS"),
      link("samples", "LATENT", {.extra = Json::object()}),
      number("denoise_strength", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01}),
      link("feta_args", "FETAARGS"),
      link("context_options", "WANVIDCONTEXT"),
      link("cache_args", "CACHEARGS"),
      link("flowedit_args", "FLOWEDITARGS"),
      boolean("batched_cfg", {.def = false,
                              .tooltip = "Both prompts share each pass over the weights here, "
                                         "either way."}),
      link("slg_args", "SLGARGS"),
      choice("rope_function", {"default", "comfy", "comfy_chunked"}, {.def = "comfy"}),
      link("loop_args", "LOOPARGS"),
      link("experimental_args", "EXPERIMENTALARGS"),
      link("sigmas", "SIGMAS"),
      link("unianimate_poses", "UNIANIMATE_POSE"),
      link("fantasytalking_embeds", "FANTASYTALKING_EMBEDS"),
      link("uni3c_embeds", "UNI3C_EMBEDS"),
      link("multitalk_embeds", "MULTITALK_EMBEDS"),
      link("freeinit_args", "FREEINITARGS"),
      integer("start_step", {.def = 0, .min = 0, .max = 10000, .step = 1}),
      integer("end_step", {.def = -1, .min = -1, .max = 10000, .step = 1}),
      boolean("add_noise_to_samples", {.def = false}),
      link("teacache_args", "CACHEARGS"),
  };
  for (auto& input : inputs) input.required = false;
  return inputs;
}

}  // namespace

void add_sampler_nodes(graph::Catalog& catalog) {
  graph::NodeType sampler{
      .name = "WanVideoSampler",
      .display_name = "WanVideo Sampler",
      .category = kCategory,
      .description = "Makes the latent of a video: starts from noise and removes it step by step.",
      .python_module = kModule,
      .inputs = required_inputs(),
      .outputs = {{"LATENT", "samples"}, {"LATENT", "denoised_samples"}},
      .run = run_sampler,
  };
  for (auto& input : optional_inputs()) sampler.inputs.push_back(input);
  auto placed = multigpu_variant(sampler);
  placed.inputs.insert(placed.inputs.begin() + 1,
                       optional(link("compute_device", "MULTIGPUDEVICE")));
  catalog.add(std::move(sampler));
  catalog.add(std::move(placed));
}

}  // namespace distorch::nodes::wan_wrapper
