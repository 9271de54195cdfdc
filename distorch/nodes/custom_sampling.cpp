#include "distorch/nodes/catalog.h"
#include "distorch/nodes/sample_run.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::ChosenSampler;
using sampling::Conditioning;
using sampling::Guider;
using sampling::GuiderRule;
using sampling::Latent;
using sampling::Sigmas;

namespace {

/// The run itself; its inputs "sampler", "sigmas" and "latent_image" are those of both nodes.
/// `seed` counts for samplers that draw noise, also where the start has none.
void sample(Call& call, const ModelGuider& guider, const NoiseChoice& noise, std::uint64_t seed) {
  auto latent = call.get<Latent>("latent_image");
  sampling::SampleRequest request;
  request.sampler = call.get<ChosenSampler>("sampler");
  request.sigmas = call.get<Sigmas>("sigmas");
  latent.samples = fix_empty_latent_channels(SampledModel(guider.model), latent.samples);
  auto out = [&](std::size_t slot, const at::Tensor& samples) {
    auto result = latent;
    result.samples = samples;
    call.out(slot, Value::of("LATENT", std::move(result)));
  };
  auto steps = static_cast<int>(request.sigmas.size()) - 1;
  if (steps < 0) {
    out(0, latent.samples);
    return out(1, latent.samples);
  }
  PreparedRun run(call, guider, latent.samples, std::max(steps, 1));
  if (run.plan_only()) {
    out(0, latent.samples);
    return out(1, latent.samples);
  }
  request.seed = seed;
  request.noise = noise_for(latent, noise);
  request.latent_image = latent.samples;
  request.noise_mask = latent.noise_mask;
  request.stages = guider.model.guidance;
  request.label = call.place();
  StepReport report(call, guider.model.latent_format());
  auto result = sampling::run_sampler(run.model(), request, run.guider(), std::ref(report));
  out(0, result.samples);
  out(1, result.denoised.defined() ? result.denoised : result.samples);
}

void run_custom(Call& call) {
  auto seed = call.seed("noise_seed");
  NoiseChoice noise;
  if (call.boolean("add_noise")) noise.seed = seed;
  sample(call,
         {call.get<Model>("model"),
          {call.number("cfg"),
           call.get<Conditioning>("positive"),
           call.get<Conditioning>("negative"),
           {}}},
         noise, seed);
}

void run_custom_advanced(Call& call) {
  const auto& noise = call.get<NoiseChoice>("noise");
  sample(call, call.get<ModelGuider>("guider"), noise, noise.seed.value_or(0));
}

void out_guider(Call& call, Guider guider) {
  call.out(0, Value::of("GUIDER", ModelGuider{call.get<Model>("model"), std::move(guider)}));
}

void run_basic_guider(Call& call) {
  out_guider(call, {1.0, call.get<Conditioning>("conditioning"), {}, {}});
}

void run_cfg_guider(Call& call) {
  out_guider(call, {call.number("cfg"),
                    call.get<Conditioning>("positive"),
                    call.get<Conditioning>("negative"),
                    {}});
}

void run_dual_cfg_guider(Call& call) {
  auto kind =
      call.text("style") == "nested" ? GuiderRule::Kind::NestedDual : GuiderRule::Kind::Dual;
  out_guider(call, {{kind, call.number("cfg_conds"), call.number("cfg_cond2_negative")},
                    call.get<Conditioning>("cond1"),
                    call.get<Conditioning>("negative"),
                    call.get<Conditioning>("cond2")});
}

void run_perp_neg_guider(Call& call) {
  out_guider(call, {{GuiderRule::Kind::PerpNeg, call.number("cfg"), call.number("neg_scale")},
                    call.get<Conditioning>("positive"),
                    call.get<Conditioning>("negative"),
                    call.get<Conditioning>("empty_conditioning")});
}

void run_dual_model_guider(Call& call) {
  ModelGuider guider{call.get<Model>("model"),
                     {call.number("cfg"), call.get<Conditioning>("positive"), {}, {}}};
  // Without words of its own the negative says nothing at all.
  guider.guider.negative = call.has("negative") ? call.get<Conditioning>("negative")
                                                : Conditioning{sampling::ConditioningItem{}};
  if (call.has("model_negative")) guider.negative_model = call.get<Model>("model_negative");
  call.out(0, Value::of("GUIDER", std::move(guider)));
}

void run_random_noise(Call& call) {
  call.out(0, Value::of("NOISE", NoiseChoice{call.seed("noise_seed")}));
}

void run_disable_noise(Call& call) { call.out(0, Value::of("NOISE", NoiseChoice{})); }

/// Noise as strong as the distance between the first and the last level, on the latent as it is.
void run_add_noise(Call& call) {
  const auto& sigmas = call.get<Sigmas>("sigmas");
  if (sigmas.empty()) return call.out(0, call.in("latent_image"));
  auto latent = call.get<Latent>("latent_image");
  SampledModel model(call.get<Model>("model"));
  auto noise = noise_for(latent, call.get<NoiseChoice>("noise"));
  auto level = sigmas.size() > 1 ? std::abs(sigmas.front() - sigmas.back()) : sigmas.front();
  auto start = latent.samples;
  if (start.count_nonzero().item<std::int64_t>() > 0) start = model.process_latent_in(start);
  auto noisy = model.process_latent_out(model.sampling().noise_scaling(level, noise, start));
  latent.samples = noisy.nan_to_num(0.0, 0.0, 0.0);
  call.out(0, Value::of("LATENT", std::move(latent)));
}

graph::Input cfg(const char* name) {
  return number(name, {.def = 8.0, .min = 0.0, .max = 100.0, .step = 0.1, .round = 0.01});
}

graph::Input seed() {
  return integer(
      "noise_seed",
      {.def = 0, .min = 0, .max = 18446744073709551615ULL, .control_after_generate = true});
}

graph::NodeType node(const char* name, const char* folder, std::vector<graph::Input> inputs,
                     std::vector<graph::Output> outputs, void (*run)(Call&)) {
  return {.name = name,
          .category = std::string("sampling/custom_sampling") + folder,
          .python_module = "comfy_extras.nodes_custom_sampler",
          .inputs = std::move(inputs),
          .outputs = std::move(outputs),
          .run = run};
}

}  // namespace

void add_custom_sampling_nodes(graph::Catalog& catalog) {
  const std::vector<graph::Output> latents = {{"LATENT", "output"}, {"LATENT", "denoised_output"}};
  catalog.add(
      node("SamplerCustom", "",
           {link("model", "MODEL"), boolean("add_noise", {.def = true}), seed(), cfg("cfg"),
            link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
            link("sampler", "SAMPLER"), link("sigmas", "SIGMAS"), link("latent_image", "LATENT")},
           latents, run_custom));
  catalog.add(node("SamplerCustomAdvanced", "",
                   {link("noise", "NOISE"), link("guider", "GUIDER"), link("sampler", "SAMPLER"),
                    link("sigmas", "SIGMAS"), link("latent_image", "LATENT")},
                   latents, run_custom_advanced));
  catalog.add(node("BasicGuider", "/guiders",
                   {link("model", "MODEL"), link("conditioning", "CONDITIONING")}, {"GUIDER"},
                   run_basic_guider));
  catalog.add(node("CFGGuider", "/guiders",
                   {link("model", "MODEL"), link("positive", "CONDITIONING"),
                    link("negative", "CONDITIONING"), cfg("cfg")},
                   {"GUIDER"}, run_cfg_guider));
  catalog.add(
      node("DualCFGGuider", "/guiders",
           {link("model", "MODEL"), link("cond1", "CONDITIONING"), link("cond2", "CONDITIONING"),
            link("negative", "CONDITIONING"), cfg("cfg_conds"), cfg("cfg_cond2_negative"),
            choice("style", {"regular", "nested"})},
           {"GUIDER"}, run_dual_cfg_guider));
  catalog.add(node("RandomNoise", "/noise", {seed()}, {"NOISE"}, run_random_noise));
  catalog.add(node("DisableNoise", "/noise", {}, {"NOISE"}, run_disable_noise));
  auto add_noise = node("AddNoise", "",
                        {link("model", "MODEL"), link("noise", "NOISE"), link("sigmas", "SIGMAS"),
                         link("latent_image", "LATENT")},
                        {"LATENT"}, run_add_noise);
  add_noise.category = "_for_testing/custom_sampling/noise";
  catalog.add(std::move(add_noise));
  catalog.add(
      {.name = "DualModelGuider",
       .display_name = "Dual Model CFG Guider",
       .category = "model/sampling/guiders",
       .python_module = "comfy_extras.nodes_custom_sampler",
       .inputs =
           {link("model", "MODEL", {.tooltip = "What the positive conditioning is asked of."}),
            graph::optional(link("model_negative", "MODEL",
                                 {.tooltip = "What the negative one is asked of; the other "
                                             "model where none is linked."})),
            link("positive", "CONDITIONING"),
            number("cfg", {.def = 4.0, .min = 0.0, .max = 100.0, .step = 0.1, .round = 0.01}),
            graph::optional(link("negative", "CONDITIONING",
                                 {.tooltip = "Left open for models that go on without a text."}))},
       .outputs = {"GUIDER"},
       .experimental = true,
       .newer_schema = true,
       .run = run_dual_model_guider});
  catalog.add(
      {.name = "PerpNegGuider",
       .category = "_for_testing",
       .python_module = "comfy_extras.nodes_perpneg",
       .inputs = {link("model", "MODEL"), link("positive", "CONDITIONING"),
                  link("negative", "CONDITIONING"), link("empty_conditioning", "CONDITIONING"),
                  cfg("cfg"),
                  number("neg_scale", {.def = 1.0, .min = 0.0, .max = 100.0, .step = 0.01})},
       .outputs = {"GUIDER"},
       .experimental = true,
       .newer_schema = true,
       .run = run_perp_neg_guider});
}

}  // namespace distorch::nodes
