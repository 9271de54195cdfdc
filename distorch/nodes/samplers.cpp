#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::SamplerOptions;

namespace {

void out_sampler(Call& call, const sampling::Sampler& sampler, SamplerOptions options = {}) {
  call.out(0, Value::of("SAMPLER", sampling::ChosenSampler{&sampler, std::move(options)}));
}

void out_sampler(Call& call, const char* name, SamplerOptions options) {
  out_sampler(call, sampling::find_sampler(name), std::move(options));
}

SamplerOptions noise_options(Call& call) {
  SamplerOptions options;
  options.eta = call.number("eta");
  options.s_noise = call.number("s_noise");
  return options;
}

/// All there is to say about these is how much noise they add. All noise is drawn on the CPU,
/// whatever "noise_device" says.
template <const char* const& kName>
void run_noisy(Call& call) {
  out_sampler(call, kName, noise_options(call));
}
const char* const kEulerAncestral = "euler_ancestral";
const char* const kEulerAncestralCfgPp = "euler_ancestral_cfg_pp";
const char* const k2sAncestral = "dpmpp_2s_ancestral";
const char* const k3mSde = "dpmpp_3m_sde";

void run_select(Call& call) {
  out_sampler(call, sampling::find_sampler(call.text("sampler_name")));
}

void run_2m_sde(Call& call) {
  bool heun = call.text("solver_type") == "heun";
  out_sampler(call, heun ? "dpmpp_2m_sde_heun" : "dpmpp_2m_sde", noise_options(call));
}

void run_sde(Call& call) {
  auto options = noise_options(call);
  options.inner_part = call.number("r");
  if (!(options.inner_part > 0))
    throw Error(ErrorKind::Usage, call.place(), "r must be above 0: it divides the step");
  out_sampler(call, "dpmpp_sde", options);
}

void run_lms(Call& call) {
  SamplerOptions options;
  options.lms_order = static_cast<int>(call.integer("order"));
  out_sampler(call, "lms", options);
}

void run_adaptive(Call& call) {
  auto options = noise_options(call);
  options.adaptive = {.order = static_cast<int>(call.integer("order")),
                      .relative = call.number("rtol"),
                      .absolute = call.number("atol"),
                      .first_step = call.number("h_init"),
                      .proportional = call.number("pcoeff"),
                      .integral = call.number("icoeff"),
                      .derivative = call.number("dcoeff"),
                      .safety = call.number("accept_safety")};
  out_sampler(call, "dpm_adaptive", options);
}

void run_er_sde(Call& call) {
  auto kind = call.text("solver_type");
  auto eta = call.number("eta");
  SamplerOptions options;
  options.s_noise = call.number("s_noise");
  options.er_sde.stages = static_cast<int>(call.integer("max_stage"));
  bool ode = kind == "ODE" || (kind == "Reverse-time SDE" && eta == 0);
  if (ode) {
    eta = 0;
    options.s_noise = 0.0;
  }
  if (kind != "ER-SDE") options.er_sde.power = eta + 1;
  out_sampler(call, "er_sde", options);
}

void run_sa_solver(Call& call) {
  const auto& sampling = call.get<Model>("model").noise_levels();
  auto options = noise_options(call);
  options.sa_solver = {
      .noisy_from = sampling.percent_to_sigma(call.number("sde_start_percent")),
      .noisy_to = sampling.percent_to_sigma(call.number("sde_end_percent")),
      .predictor_order = static_cast<int>(call.integer("predictor_order")),
      .corrector_order = static_cast<int>(call.integer("corrector_order")),
      .evaluate_twice = call.boolean("use_pece"),
      .simple_order_2 = call.boolean("simple_order_2"),
  };
  out_sampler(call, "sa_solver", options);
}

void run_seeds_2(Call& call) {
  auto options = noise_options(call);
  options.inner_part = call.number("r");
  options.second_phi = call.text("solver_type") == "phi_2";
  out_sampler(call, "seeds_2", options);
}

void run_euler_cfg_pp(Call& call) {
  bool alternative = call.text("version") == "alternative";
  out_sampler(call, alternative ? sampling::alternative_euler_cfg_pp()
                                : sampling::find_sampler("euler_cfg_pp"));
}

void run_lcm(Call& call) {
  SamplerOptions options;
  options.s_noise = call.number("s_noise");
  options.lcm = {.s_noise_end = call.number("s_noise_end"), .clip = call.number("noise_clip_std")};
  out_sampler(call, "lcm", options);
}

/// A method of resize() as a sampler takes it.
template <const char* const& kMethod>
at::Tensor resize_by(const at::Tensor& latent, std::int64_t width, std::int64_t height) {
  return resize(latent, {.width = width, .height = height, .method = kMethod});
}
const char* const kBislerp = "bislerp";
const char* const kNearest = "nearest-exact";
const char* const kBilinear = "bilinear";
const char* const kArea = "area";
const char* const kBicubic = "bicubic";

void run_lcm_upscale(Call& call) {
  static const std::map<std::string, decltype(&resize_by<kArea>)> methods = {
      {kBislerp, resize_by<kBislerp>},
      {kNearest, resize_by<kNearest>},
      {kBilinear, resize_by<kBilinear>},
      {kArea, resize_by<kArea>},
      {kBicubic, resize_by<kBicubic>}};
  SamplerOptions options;
  options.upscale.ratio = call.number("scale_ratio");
  if (auto steps = call.integer("scale_steps"); steps >= 0)
    options.upscale.steps = static_cast<int>(steps);
  options.upscale.resize = methods.at(call.text("upscale_method"));
  out_sampler(call, sampling::lcm_upscale(), options);
}

graph::Input fine(const char* name, double usual, double most = 100.0) {
  return number(name, {.def = usual, .min = 0.0, .max = most, .step = 0.01, .round = false});
}

graph::NodeType sampler(const char* name, std::vector<graph::Input> inputs, void (*run)(Call&)) {
  return {.name = name,
          .category = "sampling/custom_sampling/samplers",
          .python_module = "comfy_extras.nodes_custom_sampler",
          .inputs = std::move(inputs),
          .outputs = {"SAMPLER"},
          .run = run};
}

void add_newer(graph::Catalog& catalog) {
  catalog.add({.name = "SamplerEulerCFGpp",
               .display_name = "SamplerEulerCFG++",
               .category = "_for_testing",
               .python_module = "comfy_extras.nodes_advanced_samplers",
               .inputs = {choice("version", {"regular", "alternative"})},
               .outputs = {"SAMPLER"},
               .experimental = true,
               .newer_schema = true,
               .run = run_euler_cfg_pp});
  catalog.add(
      {.name = "SamplerLCMUpscale",
       .category = "sampling/custom_sampling/samplers",
       .python_module = "comfy_extras.nodes_advanced_samplers",
       .inputs = {number("scale_ratio", {.def = 1.0, .min = 0.1, .max = 20.0, .step = 0.01}),
                  integer("scale_steps", {.def = -1, .min = -1, .max = 1000, .step = 1}),
                  choice("upscale_method", {kBislerp, kNearest, kBilinear, kArea, kBicubic})},
       .outputs = {"SAMPLER"},
       .newer_schema = true,
       .run = run_lcm_upscale});
  auto plain = [](const char* name, double usual, double most) {
    return number(name, {.def = usual, .min = 0.0, .max = most, .step = 0.01});
  };
  catalog.add({.name = "SamplerLCM",
               .category = "model/sampling/samplers",
               .python_module = "comfy_extras.nodes_advanced_samplers",
               .inputs = {plain("s_noise", 1.0, 64.0), plain("s_noise_end", 1.0, 64.0),
                          plain("noise_clip_std", 0.0, 10.0)},
               .outputs = {"SAMPLER"},
               .newer_schema = true,
               .run = run_lcm});
  auto advanced = [](const char* name, double usual, double least, double most) {
    return number(name, {.def = usual,
                         .min = least,
                         .max = most,
                         .step = 0.01,
                         .round = false,
                         .extra = {{"advanced", true}}});
  };
  catalog.add(
      {.name = "SamplerSEEDS2",
       .category = "model/sampling/samplers",
       .python_module = "comfy_extras.nodes_custom_sampler",
       .inputs = {choice("solver_type", {"phi_1", "phi_2"}), advanced("eta", 1.0, 0.0, 100.0),
                  advanced("s_noise", 1.0, 0.0, 100.0), advanced("r", 0.5, 0.01, 1.0)},
       .outputs = {"SAMPLER"},
       .newer_schema = true,
       .run = run_seeds_2});
}

}  // namespace

void add_sampler_nodes(graph::Catalog& catalog) {
  const auto eta = fine("eta", 1.0), s_noise = fine("s_noise", 1.0);
  const auto device = choice("noise_device", {"gpu", "cpu"});
  const auto any = graph::Json::object();
  catalog.add(
      sampler("KSamplerSelect", {choice("sampler_name", sampling::sampler_names())}, run_select));
  catalog.add(sampler("SamplerEulerAncestral", {eta, s_noise}, run_noisy<kEulerAncestral>));
  auto cfg_pp =
      sampler("SamplerEulerAncestralCFGPP", {fine("eta", 1.0, 1.0), fine("s_noise", 1.0, 10.0)},
              run_noisy<kEulerAncestralCfgPp>);
  cfg_pp.display_name = "SamplerEulerAncestralCFG++";
  catalog.add(std::move(cfg_pp));
  catalog.add(sampler("SamplerLMS", {integer("order", {.def = 4, .min = 1, .max = 100})}, run_lms));
  catalog.add(sampler("SamplerDPMPP_3M_SDE", {eta, s_noise, device}, run_noisy<k3mSde>));
  catalog.add(sampler("SamplerDPMPP_2M_SDE",
                      {choice("solver_type", {"midpoint", "heun"}), eta, s_noise, device},
                      run_2m_sde));
  catalog.add(sampler("SamplerDPMPP_SDE", {eta, s_noise, fine("r", 0.5), device}, run_sde));
  catalog.add(sampler("SamplerDPMPP_2S_Ancestral", {eta, s_noise}, run_noisy<k2sAncestral>));
  catalog.add(
      sampler("SamplerDPMAdaptative",
              {integer("order", {.def = 3, .min = 2, .max = 3}), fine("rtol", 0.05),
               fine("atol", 0.0078), fine("h_init", 0.05), fine("pcoeff", 0.0), fine("icoeff", 1.0),
               fine("dcoeff", 0.0), fine("accept_safety", 0.81), fine("eta", 0.0), s_noise},
              run_adaptive));
  catalog.add(
      sampler("SamplerER_SDE",
              {choice("solver_type", {"ER-SDE", "Reverse-time SDE", "ODE"}, {.combo = true}),
               integer("max_stage", {.def = 3, .min = 1, .max = 3}), eta, s_noise},
              run_er_sde));
  auto percent = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.001});
  };
  catalog.add(
      sampler("SamplerSASolver",
              {link("model", "MODEL", {.extra = any}), fine("eta", 1.0, 10.0),
               percent("sde_start_percent", 0.2), percent("sde_end_percent", 0.8), s_noise,
               integer("predictor_order", {.def = 3, .min = 1, .max = 6}),
               integer("corrector_order", {.def = 4, .min = 0, .max = 6}),
               boolean("use_pece", {.extra = any}), boolean("simple_order_2", {.extra = any})},
              run_sa_solver));
  add_newer(catalog);
}

}  // namespace distorch::nodes
