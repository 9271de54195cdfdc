// XLabs' sampler of FLUX.1: Euler over a schedule that is shifted by the picture's size, guidance by
// a negative from some step on, and ControlNets. Source: XLabs-AI x-flux-comfyui, nodes.py
// (XlabsSampler) and sampling.py.
#include <algorithm>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/sample_run.h"
#include "distorch/nodes/xlabs.h"
#include "distorch/sampling/noise.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Conditioning;
using sampling::ConditioningItem;
using sampling::Latent;
using sampling::Sigmas;

namespace {

constexpr std::int64_t kChannels = 16;  // of FLUX.1's latents
constexpr std::int64_t kPixels = 8;     // of a side of the picture, a latent cell

/// The model with its weights, LoRAs and adapters alone: the sampler knows nothing of what other
/// nodes change about sampling.
Model bare(const Call& call) {
  const auto& given = call.get<Model>("model");
  const auto& family = *given.loaded->family;
  if (family.name() != "FLUX.1" || given.latent_format().channels != kChannels)
    throw Error(ErrorKind::Usage, call.place(),
                given.loaded->weights->checkpoint().path() + " is " + family.name() +
                    ", and this sampler is for FLUX.1");
  Model model;
  model.loaded = given.loaded;
  model.loras = given.loras;
  model.most_devices = given.most_devices;
  return model;
}

/// Noise levels of a whole run over so many tokens.
Sigmas schedule(int steps, std::int64_t tokens) {
  constexpr double few = 256, many = 4096, least = 0.5, most = 1.15;
  const auto slope = (most - least) / (many - few);
  const auto mu = slope * static_cast<double>(tokens) + (least - slope * few);
  const auto even = at::linspace(1, 0, steps + 1);
  const auto shifted = std::exp(mu) / (std::exp(mu) + (1 / even - 1));
  return {shifted.const_data_ptr<float>(), shifted.const_data_ptr<float>() + shifted.numel()};
}

/// Where a run begins.
struct Start {
  Sigmas levels;
  std::size_t whole = 0;  // levels before those were left out that lie before the start
  Tensor noise;           // [B, 16, h, w]
  Tensor picture;         // in the network's scale, of that shape; undefined: none
  /// What is denoised.
  Tensor noisy() const {
    const double level = levels.empty() ? 1.0 : levels.front();
    return picture.defined() ? level * noise + (1.0 - level) * picture : noise;
  }
};

/// A latent of 16 channels is a picture that is changed, any other one tells sizes alone.
Start start_of(Call& call, const models::LatentFormat& format) {
  const auto samples = latent_input(call, "latent_image").samples;
  if (samples.dim() != 4)
    throw Error(ErrorKind::Shape, call.place(),
                "works on pictures: the latent needs batch, channels, height and width");
  const auto height = samples.size(2) / 2 * 2, width = samples.size(3) / 2 * 2;
  if (height == 0 || width == 0)
    throw Error(ErrorKind::Shape, call.place(), "needs a latent of at least 2 x 2 cells");
  Start start;
  start.noise = sampling::prepare_noise(at::zeros({samples.size(0), kChannels, height, width}),
                                        call.seed("noise_seed"));
  start.levels = schedule(static_cast<int>(call.integer("steps")), height * width / 4);
  constexpr double all = 0.99;
  if (auto share = call.number("denoise_strength"); share <= all)
    start.levels.resize(static_cast<std::size_t>(static_cast<double>(start.levels.size()) * share));
  start.whole = start.levels.size();
  if (samples.size(1) != kChannels) return start;
  start.picture = format.into_network(
      samples.to(at::kCPU, at::kFloat).narrow(2, 0, height).narrow(3, 0, width));
  if (start.levels.empty()) {
    start.noise = start.picture;  // nothing is to be denoised
    return start;
  }
  const auto strength = std::clamp(call.number("image_to_image_strength"), 0.0, 1.0);
  const auto first = std::min(
      static_cast<std::size_t>((1 - strength) * static_cast<double>(start.whole)), start.whole - 1);
  start.levels.erase(start.levels.begin(),
                     start.levels.begin() + static_cast<std::ptrdiff_t>(first));
  return start;
}

/// The part of a run at which the model's own levels pass this one.
double percent_at(const sampling::ModelSampling& sampling, float level) {
  double low = 0, high = 1;  // levels fall
  for (int i = 0; i < 60; ++i) {
    const auto middle = (low + high) / 2;
    (sampling.percent_to_sigma(middle) > level ? low : high) = middle;
  }
  return high;
}

/// The networks that count at some step, each before those that follow it. In the original a network
/// outside of its steps goes on with what it said last; here it says nothing, as it does there for
/// the negative.
std::shared_ptr<const ControlUse> controls(Call& call, const sampling::ModelSampling& sampling,
                                           const Start& start) {
  std::shared_ptr<const ControlUse> last;
  if (!call.has("controlnet_condition")) return last;
  const auto steps = static_cast<std::int64_t>(start.levels.size()) - 1;
  auto step_at = [&](double share) {
    return static_cast<std::int64_t>(share * static_cast<double>(start.whole));
  };
  // Ranges are told as parts of the model's own levels: those that lie between two steps.
  auto before = [&](std::int64_t step) {
    if (step <= 0) return 0.0;
    if (step >= steps) return 1.0;
    const auto at = static_cast<std::size_t>(step);
    return percent_at(sampling, (start.levels[at - 1] + start.levels[at]) / 2);
  };
  const auto width = start.noise.size(3) * kPixels, height = start.noise.size(2) * kPixels;
  for (const auto& one : call.get<std::vector<XlabsControl>>("controlnet_condition")) {
    const auto first = step_at(one.start), end = step_at(one.end);
    if (one.strength == 0 || first >= steps || end < first) continue;
    auto use = std::make_shared<ControlUse>();
    use->net.loaded = one.net.loaded;
    use->image = resize_image(one.image, {width, height, "bicubic", false});
    use->strength = one.strength;
    use->start_percent = before(first);
    use->end_percent = before(end + 1);
    use->previous = last;
    last = use;
  }
  return last;
}

/// What the sampler reads of a conditioning: the first text of it.
ConditioningItem text_of(Call& call, const char* input) {
  const auto& conditioning = call.get<Conditioning>(input);
  if (conditioning.empty() || !conditioning.front().cross_attn.defined())
    throw Error(ErrorKind::Usage, call.place(), std::string("'") + input + "' holds no text");
  ConditioningItem item;
  item.cross_attn = conditioning.front().cross_attn;
  item.pooled_output = conditioning.front().pooled_output;
  if (auto made_by = conditioning.front().texts.find("text_encoder");
      made_by != conditioning.front().texts.end())
    item.texts.insert(*made_by);
  return item;
}

/// Both texts with the guidance of the positive one, and the ControlNets.
sampling::Guider guider_of(Call& call, const sampling::ModelSampling& levels, const Start& start,
                           double cfg) {
  auto positive = text_of(call, "conditioning"), negative = text_of(call, "neg_conditioning");
  const auto& given = call.get<Conditioning>("conditioning").front().numbers;
  const auto guidance = given.find("guidance");
  const auto control = controls(call, levels, start);
  for (auto* item : {&positive, &negative}) {
    item->numbers["guidance"] = guidance == given.end() ? 1.0 : guidance->second;
    if (given.count("no_guidance")) item->numbers["no_guidance"] = 1;
    item->control = control;
  }
  return {cfg, {positive}, {negative}, {}};
}

void out(Call& call, const models::LatentFormat& format, const Tensor& denoised) {
  call.out(0, Value::of("LATENT", Latent{format.out_of_network(denoised), {}, {}}));
}

void run(Call& call) {
  if (!call.has("latent_image"))
    throw Error(ErrorKind::Usage, call.place(),
                "needs a 'latent_image': it tells how large the picture is");
  const auto model = bare(call);
  const auto& format = model.latent_format();
  const auto start = start_of(call, format);
  const auto steps = static_cast<int>(start.levels.size()) - 1;
  if (steps < 1) return out(call, format, start.noisy());

  const auto first_guided =
      static_cast<int>(std::min<std::int64_t>(call.integer("timestep_to_start_cfg"), steps));
  const double cfg = first_guided < steps ? call.number("true_gs") : 1.0;
  sampling::SampleRequest request;
  if (first_guided > 0 && first_guided < steps)
    request.stages = {sampling::CfgOverride{
        1.0, start.levels.front(), start.levels[static_cast<std::size_t>(first_guided) - 1]}};
  PreparedRun run(call, {model, guider_of(call, model.noise_levels(), start, cfg)}, start.noise,
                  steps);
  if (run.plan_only()) return out(call, format, start.noise);
  request.sampler = {&sampling::find_sampler("euler"), {}};
  request.sigmas = start.levels;
  request.seed = call.seed("noise_seed");
  // The first level times this is what is to be denoised.
  request.latent_image = at::zeros_like(start.noise);
  request.noise = start.noisy() / start.levels.front();
  request.label = call.place();
  StepReport report(call, format);
  const auto result = sampling::run_sampler(run.model(), request, run.guider(), std::ref(report));
  // A run that ends with noise gives the latent as it is, not divided by how little of it there is.
  const double left = start.levels.back();
  out(call, format, format.into_network(result.samples) * (1.0 - left));
}

}  // namespace

void add_xlabs_sampler_node(graph::Catalog& catalog) {
  auto share = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
  };
  catalog.add({
      .name = "XlabsSampler",
      .display_name = "Xlabs Sampler",
      .category = kXlabsCategory,
      .description =
          "Makes a latent with FLUX.1, with XLabs' ControlNets where they are connected.",
      .python_module = kXlabsModule,
      .inputs = {link("model", "MODEL"), link("conditioning", "CONDITIONING"),
                 link("neg_conditioning", "CONDITIONING"),
                 integer("noise_seed", {.def = 0, .min = 0, .max = 18446744073709551615ULL}),
                 integer("steps", {.def = 20, .min = 1, .max = 100}),
                 integer("timestep_to_start_cfg", {.def = 20, .min = 0, .max = 100}),
                 number("true_gs", {.def = 3, .min = 0, .max = 100}),
                 share("image_to_image_strength", 0.0), share("denoise_strength", 1.0),
                 xlabs_optional("latent_image", "LATENT"),
                 xlabs_optional("controlnet_condition", "ControlNetCondition")},
      .outputs = {{"LATENT", "latent"}},
      .run = run,
  });
}

}  // namespace distorch::nodes
