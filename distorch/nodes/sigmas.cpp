#include "distorch/sampling/sigmas.h"

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Sigmas;

namespace {

void out_sigmas(Call& call, Sigmas sigmas, std::size_t slot = 0) {
  call.out(slot, Value::of("SIGMAS", std::move(sigmas)));
}

int steps_of(Call& call) { return static_cast<int>(call.integer("steps")); }

sampling::SigmaRange range_of(Call& call) {
  return {call.number("sigma_max"), call.number("sigma_min")};
}

/// denoise < 1: the last `steps` steps of a longer schedule; 0: none.
void run_basic(Call& call) {
  auto steps = steps_of(call), total = steps;
  auto denoise = call.number("denoise");
  if (denoise <= 0) return out_sigmas(call, {});
  if (denoise < 1) total = static_cast<int>(steps / denoise);
  auto sigmas = sampling::calculate_sigmas(call.get<Model>("model").noise_levels(),
                                           call.text("scheduler"), total);
  auto wanted = static_cast<std::size_t>(steps) + 1;
  if (sigmas.size() > wanted)
    sigmas.erase(sigmas.begin(), sigmas.end() - static_cast<std::ptrdiff_t>(wanted));
  out_sigmas(call, std::move(sigmas));
}

void run_karras(Call& call) {
  out_sigmas(call, sampling::karras_sigmas(steps_of(call), range_of(call), call.number("rho")));
}

void run_exponential(Call& call) {
  out_sigmas(call, sampling::exponential_sigmas(steps_of(call), range_of(call)));
}

void run_polyexponential(Call& call) {
  out_sigmas(call,
             sampling::polyexponential_sigmas(steps_of(call), range_of(call), call.number("rho")));
}

void run_laplace(Call& call) {
  out_sigmas(call, sampling::laplace_sigmas(steps_of(call), range_of(call), call.number("mu"),
                                            call.number("beta")));
}

void run_vp(Call& call) {
  out_sigmas(call, sampling::vp_sigmas(steps_of(call), call.number("beta_d"),
                                       call.number("beta_min"), call.number("eps_s")));
}

void run_beta(Call& call) {
  out_sigmas(call, sampling::beta_sigmas(call.get<Model>("model").noise_levels(), steps_of(call),
                                         call.number("alpha"), call.number("beta")));
}

void run_turbo(Call& call) {
  out_sigmas(call, sampling::turbo_sigmas(call.get<Model>("model").noise_levels(), steps_of(call),
                                          call.number("denoise")));
}

template <sampling::Tabled kTable>
void run_tabled(Call& call) {
  out_sigmas(call, sampling::tabled_sigmas(kTable, call.text("model_type"), steps_of(call),
                                           call.number("denoise")));
}

void run_gits(Call& call) {
  out_sigmas(call,
             sampling::gits_sigmas(call.number("coeff"), steps_of(call), call.number("denoise")));
}

void run_ltxv(Call& call) {
  sampling::LtxvShift shift = {.max_shift = call.number("max_shift"),
                               .base_shift = call.number("base_shift"),
                               .terminal = call.number("terminal"),
                               .stretch = call.boolean("stretch")};
  if (call.has("latent")) {
    shift.tokens = 1;
    for (auto size : call.get<sampling::Latent>("latent").samples.sizes().slice(2))
      shift.tokens *= size;
  }
  out_sigmas(call, sampling::ltxv_sigmas(steps_of(call), shift));
}

void run_flux2(Call& call) {
  out_sigmas(call,
             sampling::flux2_sigmas(steps_of(call), call.integer("width"), call.integer("height")));
}

void out_both(Call& call, std::pair<Sigmas, Sigmas> parts) {
  out_sigmas(call, std::move(parts.first), 0);
  out_sigmas(call, std::move(parts.second), 1);
}

void run_split(Call& call) {
  out_both(call, sampling::split_sigmas(call.get<Sigmas>("sigmas"),
                                        static_cast<std::size_t>(call.integer("step"))));
}

void run_split_denoise(Call& call) {
  out_both(call,
           sampling::split_sigmas_by_denoise(call.get<Sigmas>("sigmas"), call.number("denoise")));
}

void run_flip(Call& call) { out_sigmas(call, sampling::flip_sigmas(call.get<Sigmas>("sigmas"))); }

void run_set_first(Call& call) {
  auto sigmas = call.get<Sigmas>("sigmas");
  if (sigmas.empty())
    throw Error(ErrorKind::Usage, call.place(), "there is no first noise level to set");
  sigmas.front() = static_cast<float>(call.number("sigma"));
  out_sigmas(call, std::move(sigmas));
}

void run_extend(Call& call) {
  auto name = call.text("spacing");
  auto spacing = name == "cosine" ? sampling::Spacing::Cosine
                 : name == "sine" ? sampling::Spacing::Sine
                                  : sampling::Spacing::Linear;
  out_sigmas(call, sampling::extend_sigmas(call.get<Sigmas>("sigmas"), steps_of(call),
                                           call.number("start_at_sigma"),
                                           call.number("end_at_sigma"), spacing));
}

/// At both ends of a run ranges of time use levels beyond those of any step.
void run_percent_to_sigma(Call& call) {
  const auto& levels = call.get<Model>("model").noise_levels();
  auto percent = call.number("sampling_percent");
  double sigma = levels.percent_to_sigma(percent);
  if (call.boolean("return_actual_sigma")) {
    if (percent == 0) sigma = levels.sigma_max();
    if (percent == 1) sigma = levels.sigma_min();
  }
  call.out(0, Value::constant(sigma));
}

void run_manual(Call& call) { out_sigmas(call, sampling::parse_sigmas(call.text("sigmas"))); }

graph::Input steps(int usual, int least = 1, int most = 10000) {
  return integer("steps", {.def = usual, .min = least, .max = most});
}

graph::Input denoise() {
  return number("denoise", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01});
}

/// A number that is kept as it is written.
graph::Input fine(const char* name, double usual, double most, double least = 0.0,
                  double step = 0.01) {
  return number(name, {.def = usual, .min = least, .max = most, .step = step, .round = false});
}

graph::NodeType node(const char* name, const char* folder, std::vector<graph::Input> inputs,
                     void (*run)(Call&)) {
  return {.name = name,
          .category = std::string("sampling/custom_sampling/") + folder,
          .python_module = "comfy_extras.nodes_custom_sampler",
          .inputs = std::move(inputs),
          .outputs = {"SIGMAS"},
          .run = run};
}

graph::NodeType newer(const char* name, const char* module, std::vector<graph::Input> inputs,
                      void (*run)(Call&)) {
  auto type = node(name, "schedulers", std::move(inputs), run);
  type.python_module = std::string("comfy_extras.") + module;
  type.newer_schema = true;
  return type;
}

void add_schedulers(graph::Catalog& catalog) {
  const auto model = link("model", "MODEL");
  const auto high = fine("sigma_max", 14.614642, 5000.0);
  const auto low = fine("sigma_min", 0.0291675, 5000.0);
  auto add = [&](const char* name, std::vector<graph::Input> inputs, void (*run)(Call&)) {
    catalog.add(node(name, "schedulers", std::move(inputs), run));
  };
  add("BasicScheduler",
      {model, choice("scheduler", sampling::schedule_names()), steps(20), denoise()}, run_basic);
  add("KarrasScheduler", {steps(20), high, low, fine("rho", 7.0, 100.0)}, run_karras);
  add("ExponentialScheduler", {steps(20), high, low}, run_exponential);
  add("PolyexponentialScheduler", {steps(20), high, low, fine("rho", 1.0, 100.0)},
      run_polyexponential);
  add("LaplaceScheduler",
      {steps(20), high, low, fine("mu", 0.0, 10.0, -10.0, 0.1), fine("beta", 0.5, 10.0, 0.0, 0.1)},
      run_laplace);
  add("VPScheduler",
      {steps(20), fine("beta_d", 19.9, 5000.0), fine("beta_min", 0.1, 5000.0),
       fine("eps_s", 0.001, 1.0, 0.0, 0.0001)},
      run_vp);
  add("BetaSamplingScheduler",
      {model, steps(20), fine("alpha", 0.6, 50.0), fine("beta", 0.6, 50.0)}, run_beta);
  add("SDTurboScheduler",
      {model, steps(1, 1, 10), number("denoise", {.def = 1.0, .min = 0, .max = 1.0, .step = 0.01})},
      run_turbo);
  catalog.add(newer("AlignYourStepsScheduler", "nodes_align_your_steps",
                    {choice("model_type", {"SD1", "SDXL", "SVD"}), steps(10), denoise()},
                    run_tabled<sampling::Tabled::AlignYourSteps>));
  catalog.add(
      newer("OptimalStepsScheduler", "nodes_optimalsteps",
            {choice("model_type", {"FLUX", "Wan", "Chroma"}), steps(20, 3, 1000), denoise()},
            run_tabled<sampling::Tabled::OptimalSteps>));
  catalog.add(newer("GITSScheduler", "nodes_gits",
                    {number("coeff", {.def = 1.2, .min = 0.8, .max = 1.5, .step = 0.05}),
                     steps(10, 2, 1000), denoise()},
                    run_gits));
  auto shift = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 100.0, .step = 0.01});
  };
  catalog.add(newer("LTXVScheduler", "nodes_lt",
                    {steps(20), shift("max_shift", 2.05), shift("base_shift", 0.95),
                     boolean("stretch", {.def = true}),
                     number("terminal", {.def = 0.1, .min = 0.0, .max = 0.99, .step = 0.01}),
                     optional(link("latent", "LATENT"))},
                    run_ltxv));
}

}  // namespace

void add_sigma_nodes(graph::Catalog& catalog) {
  add_schedulers(catalog);
  const auto sigmas = link("sigmas", "SIGMAS");
  const std::vector<graph::Output> both = {{"SIGMAS", "high_sigmas"}, {"SIGMAS", "low_sigmas"}};
  auto split = node("SplitSigmas", "sigmas",
                    {sigmas, integer("step", {.def = 0, .min = 0, .max = 10000})}, run_split);
  split.outputs = both;
  catalog.add(std::move(split));
  auto split_denoise = node("SplitSigmasDenoise", "sigmas", {sigmas, denoise()}, run_split_denoise);
  split_denoise.outputs = both;
  catalog.add(std::move(split_denoise));
  catalog.add(node("FlipSigmas", "sigmas", {sigmas}, run_flip));
  catalog.add(node("SetFirstSigma", "sigmas", {sigmas, fine("sigma", 136.0, 20000.0, 0.0, 0.001)},
                   run_set_first));
  catalog.add(
      node("ExtendIntermediateSigmas", "sigmas",
           {sigmas, steps(2, 1, 100), fine("start_at_sigma", -1.0, 20000.0, -1.0),
            fine("end_at_sigma", 12.0, 20000.0), choice("spacing", {"linear", "cosine", "sine"})},
           run_extend));
  auto percent =
      node("SamplingPercentToSigma", "sigmas",
           {link("model", "MODEL", {.extra = graph::Json::object()}),
            number("sampling_percent", {.def = 0.0, .min = 0.0, .max = 1.0, .step = 0.0001}),
            boolean("return_actual_sigma", {.def = false})},
           run_percent_to_sigma);
  percent.outputs = {{"FLOAT", "sigma_value"}};
  catalog.add(std::move(percent));
  auto side = [](const char* name) {
    return integer(name, {.def = 1024, .min = 16, .max = 16384, .step = 1});
  };
  auto flux2 = newer("Flux2Scheduler", "nodes_flux",
                     {steps(20, 1, 4096), side("width"), side("height")}, run_flux2);
  flux2.category = "model/sampling/schedulers";
  catalog.add(std::move(flux2));
  catalog.add({.name = "ManualSigmas",
               .category = "model/sampling/sigmas",
               .python_module = "comfy_extras.nodes_custom_sampler",
               .inputs = {graph::text("sigmas", {.def = "1, 0.5", .multiline = false})},
               .outputs = {"SIGMAS"},
               .experimental = true,
               .newer_schema = true,
               .run = run_manual});
}

}  // namespace distorch::nodes
