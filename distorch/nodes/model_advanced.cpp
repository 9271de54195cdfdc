#include "distorch/models/latent_formats.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Prediction;

namespace {

/// The model with other noise levels.
void out_with(Call& call, std::shared_ptr<const sampling::ModelSampling> sampling) {
  auto model = call.get<Model>("model");
  model.sampling = std::move(sampling);
  call.out(0, Value::of("MODEL", std::move(model)));
}

Prediction prediction_of(const std::string& name) {
  if (name == "v_prediction") return Prediction::V;
  if (name == "x0") return Prediction::X0;
  if (name == "lcm") return Prediction::Lcm;
  if (name == "img_to_img") return Prediction::ImgToImg;
  return name.starts_with("edm") ? Prediction::Edm : Prediction::Eps;
}

void run_discrete(Call& call) {
  sampling::DiscreteSettings settings;
  settings.prediction = prediction_of(call.text("sampling"));
  settings.zero_terminal_snr = call.boolean("zsnr");
  // Models distilled to few steps know every twentieth level only.
  if (settings.prediction == Prediction::Lcm) settings.distilled_timesteps = 50;
  out_with(call, sampling::discrete_sampling(settings));
}

void run_continuous_edm(Call& call) {
  auto name = call.text("sampling");
  if (name == "cosmos_rflow")
    return out_with(
        call, sampling::cosmos_flow_sampling(call.number("sigma_min"), call.number("sigma_max")));
  auto prediction = prediction_of(name);
  auto model = call.get<Model>("model");
  model.sampling = sampling::continuous_edm_sampling(prediction, call.number("sigma_min"),
                                                     call.number("sigma_max"),
                                                     prediction == Prediction::Edm ? 0.5 : 1.0);
  if (name == "edm_playground_v2.5") model.latent = models::playground_latent();
  call.out(0, Value::of("MODEL", std::move(model)));
}

void run_continuous_v(Call& call) {
  out_with(call,
           sampling::continuous_v_sampling(call.number("sigma_min"), call.number("sigma_max")));
}

void run_cascade(Call& call) { out_with(call, sampling::cascade_sampling(call.number("shift"))); }
void run_sd3(Call& call) { out_with(call, sampling::flow_sampling(call.number("shift"))); }
void run_aura_flow(Call& call) {
  out_with(call, sampling::flow_sampling(call.number("shift"), 1.0));
}

/// A shift that grows with the picture: `base_shift` at 256 tokens, `max_shift` at 4096.
void run_flux(Call& call) {
  constexpr double kFewest = 256, kMost = 4096, kPixelsOfToken = 16 * 16;
  auto at_most = call.number("max_shift"), at_fewest = call.number("base_shift");
  auto slope = (at_most - at_fewest) / (kMost - kFewest);
  auto tokens = static_cast<double>(call.integer("width")) *
                static_cast<double>(call.integer("height")) / kPixelsOfToken;
  out_with(call, sampling::flux_sampling(tokens * slope + (at_fewest - slope * kFewest)));
}

void run_rescale(Call& call) {
  auto model = call.get<Model>("model");
  model.guidance.push_back(sampling::RescaleCfg{call.number("multiplier")});
  call.out(0, Value::of("MODEL", std::move(model)));
}

void run_compute_dtype(Call& call) {
  static const std::map<std::string, at::ScalarType> types = {
      {"fp32", at::kFloat}, {"fp16", at::kHalf}, {"bf16", at::kBFloat16}};
  auto model = call.get<Model>("model");
  auto type = types.find(call.text("dtype"));
  if (type != types.end() && type->second != model.loaded->weights->options().dtype)
    model.loaded =
        changed_model(*model.loaded, {.key = type->first, .family = {}, .dtype = type->second},
                      call.context<streaming::Engine>());
  call.out(0, Value::of("MODEL", std::move(model)));
}

graph::NodeType changes_model(const char* name, std::vector<graph::Input> inputs,
                              void (*run)(Call&)) {
  inputs.insert(inputs.begin(), link("model", "MODEL"));
  return {.name = name,
          .display_name = name,
          .category = "advanced/model",
          .python_module = "comfy_extras.nodes_model_advanced",
          .inputs = std::move(inputs),
          .outputs = {"MODEL"},
          .run = run};
}

}  // namespace

void add_advanced_model_nodes(graph::Catalog& catalog) {
  auto sigma = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1000.0, .step = 0.001, .round = false});
  };
  auto shift = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 100.0, .step = 0.01});
  };
  auto side = [](const char* name) {
    return integer(name, {.def = 1024, .min = 16, .max = 16384, .step = 8});
  };
  catalog.add(changes_model("ModelSamplingDiscrete",
                            {choice("sampling", {"eps", "v_prediction", "lcm", "x0", "img_to_img"}),
                             boolean("zsnr", {.def = false})},
                            run_discrete));
  catalog.add(changes_model(
      "ModelSamplingContinuousEDM",
      {choice("sampling", {"v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"}),
       sigma("sigma_max", 120.0), sigma("sigma_min", 0.002)},
      run_continuous_edm));
  catalog.add(changes_model(
      "ModelSamplingContinuousV",
      {choice("sampling", {"v_prediction"}), sigma("sigma_max", 500.0), sigma("sigma_min", 0.03)},
      run_continuous_v));
  catalog.add(changes_model("ModelSamplingStableCascade", {shift("shift", 2.0)}, run_cascade));
  catalog.add(changes_model("ModelSamplingSD3", {shift("shift", 3.0)}, run_sd3));
  catalog.add(changes_model("ModelSamplingAuraFlow", {shift("shift", 1.73)}, run_aura_flow));
  catalog.add(changes_model(
      "ModelSamplingFlux",
      {shift("max_shift", 1.15), shift("base_shift", 0.5), side("width"), side("height")},
      run_flux));
  catalog.add(changes_model(
      "RescaleCFG", {number("multiplier", {.def = 0.7, .min = 0.0, .max = 1.0, .step = 0.01})},
      run_rescale));
  auto compute =
      changes_model("ModelComputeDtype", {choice("dtype", {"default", "fp32", "fp16", "bf16"})},
                    run_compute_dtype);
  compute.category = "advanced/debug/model";
  catalog.add(std::move(compute));
  // There is one implementation of attention for each device: nothing to choose from.
  auto attention =
      changes_model("ModelAttentionBackend", {choice("attention", {"pytorch attention"})},
                    [](Call& call) { call.out(0, call.in("model")); });
  attention.category = "model/patch";
  catalog.add(std::move(attention));
}

}  // namespace distorch::nodes
