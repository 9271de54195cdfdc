#include "distorch/nodes/catalog.h"
#include "distorch/nodes/sample_run.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Choices;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Conditioning;
using sampling::KSamplerSettings;
using sampling::Latent;

namespace {

void sample(Call& call, KSamplerSettings settings) {
  const auto& model = call.get<Model>("model");
  auto latent = call.get<Latent>("latent_image");
  settings.sampler = call.text("sampler_name");
  settings.scheduler = call.text("scheduler");
  settings.steps = static_cast<int>(call.integer("steps"));
  settings.cfg = call.number("cfg");
  settings.label = call.place();
  settings.stages = model.guidance;
  PreparedRun run(
      call,
      {model,
       {settings.cfg, call.get<Conditioning>("positive"), call.get<Conditioning>("negative"), {}}},
      latent.samples, settings.steps);
  if (run.plan_only()) return call.out(0, Value::of("LATENT", std::move(latent)));
  StepReport report(call, model.latent_format());
  latent.samples = sampling::run_ksampler(run.model(), settings, latent, run.guider().positive,
                                          run.guider().negative, std::ref(report));
  call.out(0, Value::of("LATENT", std::move(latent)));
}

void run_ksampler(Call& call) {
  KSamplerSettings settings;
  settings.seed = call.seed("seed");
  settings.denoise = call.number("denoise");
  sample(call, settings);
}

void run_ksampler_advanced(Call& call) {
  KSamplerSettings settings;
  settings.seed = call.seed("noise_seed");
  settings.add_noise = call.text("add_noise") == "enable";
  settings.start_step = static_cast<int>(call.integer("start_at_step"));
  settings.last_step = static_cast<int>(call.integer("end_at_step"));
  settings.force_full_denoise = call.text("return_with_leftover_noise") == "disable";
  sample(call, settings);
}

graph::Input seed(const char* name, std::string tooltip = {}) {
  return integer(name, {.def = 0,
                        .min = 0,
                        .max = 18446744073709551615ULL,
                        .control_after_generate = true,
                        .tooltip = std::move(tooltip)});
}

}  // namespace

void add_sampling_nodes(graph::Catalog& catalog) {
  const Choices samplers(sampling::sampler_names()), schedulers(sampling::schedule_names());
  auto cfg = [](std::string tooltip = {}) {
    return number("cfg", {.def = 8.0,
                          .min = 0.0,
                          .max = 100.0,
                          .step = 0.1,
                          .round = 0.01,
                          .tooltip = std::move(tooltip)});
  };
  catalog.add({
      .name = "KSampler",
      .display_name = "KSampler",
      .category = "sampling",
      .description =
          "Makes a latent image: starts from noise and removes it step by step, guided by "
          "both prompts.",
      .inputs =
          {link("model", "MODEL", {.tooltip = "The diffusion model that does the work."}),
           seed("seed", "Decides the noise: the same seed and settings give the same image."),
           integer("steps",
                   {.def = 20,
                    .min = 1,
                    .max = 10000,
                    .tooltip = "How many steps to take. More take longer and refine more."}),
           cfg("How closely to follow the prompt. 1 leaves the negative prompt out (and halves the "
               "work), very high values burn the colours."),
           choice(
               "sampler_name", samplers,
               {.tooltip = "The method that walks from noise to image. Methods differ in speed and "
                           "look."}),
           choice("scheduler", schedulers, {.tooltip = "How much noise is left after each step."}),
           link("positive", "CONDITIONING", {.tooltip = "What the image should show."}),
           link("negative", "CONDITIONING", {.tooltip = "What the image should not show."}),
           link("latent_image", "LATENT",
                {.tooltip = "Where to start: an empty latent, or an encoded image to change."}),
           number("denoise", {.def = 1.0,
                              .min = 0.0,
                              .max = 1.0,
                              .step = 0.01,
                              .tooltip = "How much of the start is replaced: 1 all of it, less "
                                         "keeps more of an encoded image."})},
      .outputs = {{"LATENT", "", "The finished latent, for a VAE."}},
      .run = run_ksampler,
  });
  catalog.add({
      .name = "KSamplerAdvanced",
      .display_name = "KSampler (Advanced)",
      .category = "sampling",
      .inputs = {link("model", "MODEL"), choice("add_noise", {"enable", "disable"}),
                 seed("noise_seed"), integer("steps", {.def = 20, .min = 1, .max = 10000}), cfg(),
                 choice("sampler_name", samplers), choice("scheduler", schedulers),
                 link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
                 link("latent_image", "LATENT"),
                 integer("start_at_step", {.def = 0, .min = 0, .max = 10000}),
                 integer("end_at_step", {.def = 10000, .min = 0, .max = 10000}),
                 choice("return_with_leftover_noise", {"disable", "enable"})},
      .outputs = {"LATENT"},
      .run = run_ksampler_advanced,
  });
}

}  // namespace distorch::nodes
