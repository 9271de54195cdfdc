// HyVideoSampler: from noise to a video's latent.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/hyvideo_wrapper_run.h"
#include "distorch/nodes/pictures.h"
#include "distorch/sampling/hunyuan_schedule.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Latent;

namespace {

/// A linked latent with frames in the network's scale; undefined: none is linked.
Tensor scaled_input(const Call& call, const char* name) {
  if (!call.has(name)) return {};
  auto samples = latent_input(call, name).samples;
  if (samples.dim() == 4) samples = samples.unsqueeze(2);
  return samples.to(at::kFloat) * kLatentScale;
}

SamplerJob job_of(Call& call) {
  SamplerJob job{.model = call.get<HyModel>("model"),
                 .embeds = call.get<Embeds>("hyvid_embeds"),
                 .width = call.integer("width"),
                 .height = call.integer("height"),
                 .frames = call.integer("num_frames"),
                 .steps = call.integer("steps"),
                 .scheduler = call.text("scheduler"),
                 .guidance = call.number("embedded_guidance_scale"),
                 .shift = call.number("flow_shift"),
                 .seed = call.seed("seed"),
                 .riflex = call.integer("riflex_freq_index"),
                 .samples = scaled_input(call, "samples"),
                 .image = scaled_input(call, "image_cond_latents"),
                 .denoise = call.number("denoise_strength"),
                 .stable = call.text("i2v_mode") == "stability",
                 .mask = {},
                 .weak = optional_input<WeakBlock>(call, "stg_args"),
                 .context = optional_input<wan_wrapper::ContextChoice>(call, "context_options"),
                 .enhance = optional_input<Enhance>(call, "feta_args"),
                 .cache = optional_input<TeaCache>(call, "teacache_args"),
                 .loop = optional_input<wan_wrapper::Loop>(call, "loop_args"),
                 .frequencies = optional_input<Frequencies>(call, "fresca_args"),
                 .skipped = optional_input<SkippedBlocks>(call, "slg_args")};
  if (call.has("mask")) job.mask = mask_input(call, "mask");
  return job;
}

void run_sampler(Call& call) {
  const auto samples = sample_video(call, job_of(call));
  call.out(0, Value::of("LATENT", Latent{samples / kLatentScale, {}, {}}));
}

graph::Input side(const char* name) {
  return integer(name, {.def = 512, .min = 64, .max = 4096, .step = 16});
}

std::vector<graph::Input> required_inputs() {
  return {
      link("model", "HYVIDEOMODEL"),
      link("hyvid_embeds", "HYVIDEMBEDS"),
      side("width"),
      side("height"),
      integer("num_frames", {.def = 49, .min = 1, .max = 1024, .step = 4}),
      integer("steps", {.def = 30, .min = 1}),
      number("embedded_guidance_scale",
             {.def = 6.0,
              .min = 0.0,
              .max = 30.0,
              .step = 0.01,
              .tooltip = "What the model is told about guidance; 0: nothing."}),
      number("flow_shift", {.def = 9.0, .min = 0.0, .max = 1000.0, .step = 0.01}),
      integer("seed", {.def = 0, .min = 0, .max = 18446744073709551615ULL}),
      boolean("force_offload",
              {.def = true,
               .tooltip = "Weights make room here when something else needs it, either way."}),
  };
}

std::vector<graph::Input> optional_inputs() {
  std::vector<graph::Input> inputs = {
      link("samples", "LATENT", {.extra = Json::object()}),
      link("image_cond_latents", "LATENT", {.extra = Json::object()}),
      number("denoise_strength", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01}),
      link("stg_args", "STGARGS"),
      link("context_options", "HYVIDCONTEXT"),
      link("feta_args", "FETAARGS"),
      link("teacache_args", "TEACACHEARGS"),
      choice("scheduler", sampling::hunyuan_schedulers(),
             {.def = sampling::hunyuan_schedulers().front()}),
      integer("riflex_freq_index", {.def = 0, .min = 0, .max = 1000, .step = 1}),
      choice("i2v_mode", {"stability", "dynamic"}, {.def = "dynamic"}),
      link("loop_args", "LOOPARGS"),
      link("fresca_args", "FRESCA_ARGS"),
      link("slg_args", "SLGARGS"),
      link("mask", "MASK"),
  };
  for (auto& input : inputs) input.required = false;
  return inputs;
}

}  // namespace

void add_sampler_nodes(graph::Catalog& catalog) {
  auto inputs = required_inputs();
  for (auto& input : optional_inputs()) inputs.push_back(std::move(input));
  auto sampler = setting("HyVideoSampler", "HunyuanVideo Sampler", std::move(inputs),
                         {"LATENT", "samples"}, run_sampler);
  sampler.description =
      "Makes the latent of a video: starts from noise and removes it step by step. It runs on the "
      "device that its model was loaded for.";
  catalog.add(std::move(sampler));
}

}  // namespace distorch::nodes::hyvideo
