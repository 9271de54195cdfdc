#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;
using graph::Value;

namespace {

void out_with(Call& call, sampling::GuidanceStage stage) {
  auto model = call.get<Model>("model");
  model.guidance.push_back(std::move(stage));
  call.out(0, Value::of("MODEL", std::move(model)));
}

void run_norm(Call& call) {
  auto strength = call.number("strength");
  if (call.has("pre_cfg") && call.boolean("pre_cfg"))
    out_with(call, sampling::MatchedNorm{strength});
  else
    out_with(call, sampling::CfgNorm{strength});
}
void run_zero_star(Call& call) { out_with(call, sampling::CfgZeroStar{}); }
void run_damping(Call& call) { out_with(call, sampling::TangentialDamping{}); }
void run_mahiro(Call& call) { out_with(call, sampling::Mahiro{}); }

void run_projected(Call& call) {
  out_with(call, sampling::ProjectedGuidance{.parallel = call.number("eta"),
                                             .norm_threshold = call.number("norm_threshold"),
                                             .momentum = call.number("momentum")});
}

void run_epsilon(Call& call) {
  constexpr double almost_nothing = 1e-9;  // in place of 0, which nothing can be divided by
  auto factor = call.number("scaling_factor");
  out_with(call, sampling::EpsilonScaling{factor == 0 ? almost_nothing : factor});
}

void run_renorm(Call& call) {
  out_with(call, sampling::RenormCfg{.below_sigma = call.number("cfg_trunc"),
                                     .most = call.number("renorm_cfg")});
}

void run_frequencies(Call& call) {
  out_with(call, sampling::FrequencyScaling{.low = call.number("scale_low"),
                                            .high = call.number("scale_high"),
                                            .cutoff = call.integer("freq_cutoff")});
}

void run_perp_neg(Call& call) {
  const auto& empty = call.get<sampling::Conditioning>("empty_conditioning");
  out_with(call, sampling::PerpendicularNegative{
                     .empty = std::make_shared<const sampling::Conditioning>(empty),
                     .scale = call.number("neg_scale")});
}

void run_perturbed(Call& call) {
  out_with(call, sampling::PerturbedAttention{.scale = call.number("scale")});
}

void run_self_attention(Call& call) {
  out_with(call, sampling::SelfAttention{.scale = call.number("scale"),
                                         .blur = call.number("blur_sigma")});
}

void run_differential(Call& call) {
  out_with(call, sampling::DifferentialMask{call.number("strength")});
}

/// Every whole number of a text, as names of blocks of a kind.
void add_blocks(std::set<std::string>& blocks, const std::string& kind, const std::string& list) {
  std::string digits;
  for (char letter : list + " ") {
    if (std::isdigit(static_cast<unsigned char>(letter))) {
      digits += letter;
    } else if (!digits.empty()) {
      blocks.insert(kind + "." + std::to_string(std::stoull(digits.substr(0, 9))));
      digits.clear();
    }
  }
}

std::set<std::string> blocks_of(Call& call, const char* doubles, const char* singles) {
  std::set<std::string> blocks;
  add_blocks(blocks, "double_blocks", call.text(doubles));
  if (singles) add_blocks(blocks, "single_blocks", call.text(singles));
  return blocks;
}

float sigma_at(Call& call, const char* percent) {
  const auto& levels = call.get<Model>("model").noise_levels();
  return static_cast<float>(levels.percent_to_sigma(call.number(percent)));
}

void skip_layers(Call& call, std::set<std::string> blocks, double rescaling) {
  if (blocks.empty()) return call.out(0, call.in("model"));
  out_with(call, sampling::SkipLayers{.blocks = std::move(blocks),
                                      .scale = call.number("scale"),
                                      .sigma_start = sigma_at(call, "start_percent"),
                                      .sigma_end = sigma_at(call, "end_percent"),
                                      .rescaling = rescaling});
}

void run_skip_layers(Call& call) {
  skip_layers(call, blocks_of(call, "double_layers", "single_layers"),
              call.number("rescaling_scale"));
}

void run_skip_layers_sd3(Call& call) { skip_layers(call, blocks_of(call, "layers", nullptr), 0.0); }

void run_skip_layers_simple(Call& call) {
  auto blocks = blocks_of(call, "double_layers", "single_layers");
  if (blocks.empty()) return call.out(0, call.in("model"));
  out_with(call, sampling::SkipLayersOfNegative{.blocks = std::move(blocks),
                                                .sigma_start = sigma_at(call, "start_percent"),
                                                .sigma_end = sigma_at(call, "end_percent")});
}

template <bool kTriangle>
void run_frames(Call& call) {
  out_with(call, sampling::FrameGuidance{.least = call.number("min_cfg"), .triangle = kTriangle});
}

void run_override(Call& call) {
  out_with(call, sampling::CfgOverride{.cfg = call.number("cfg"),
                                       .sigma_start = sigma_at(call, "start_percent"),
                                       .sigma_end = sigma_at(call, "end_percent")});
}

void run_apply_operation(Call& call) {
  auto latent = call.get<sampling::Latent>("samples");
  latent.samples =
      sampling::apply_operation(call.get<sampling::LatentOperation>("operation"), latent.samples);
  call.out(0, Value::of("LATENT", std::move(latent)));
}

void run_apply_operation_cfg(Call& call) {
  out_with(call, sampling::GuidanceOperation{call.get<sampling::LatentOperation>("operation")});
}

void out_operation(Call& call, sampling::LatentOperation operation) {
  call.out(0, Value::of("LATENT_OPERATION", std::move(operation)));
}

void run_tonemap(Call& call) {
  out_operation(call, sampling::TonemapReinhard{call.number("multiplier")});
}

void run_sharpen(Call& call) {
  out_operation(call, sampling::Sharpen{.radius = static_cast<int>(call.integer("sharpen_radius")),
                                        .sigma = call.number("sigma"),
                                        .alpha = call.number("alpha")});
}

template <sampling::CachedSteps::Kind kKind>
void run_cache(Call& call) {
  out_with(call, sampling::CachedSteps{.kind = kKind,
                                       .threshold = call.number("reuse_threshold"),
                                       .start_percent = call.number("start_percent"),
                                       .end_percent = call.number("end_percent"),
                                       .verbose = call.boolean("verbose")});
}

/// A node of the newer schema that takes a MODEL, and perhaps more, and gives it changed.
graph::NodeType patch(const char* name, const char* category, const char* module,
                      std::vector<graph::Input> inputs, void (*run)(Call&)) {
  inputs.insert(inputs.begin(), link("model", "MODEL"));
  return {.name = name,
          .category = category,
          .python_module = std::string("comfy_extras.") + module,
          .inputs = std::move(inputs),
          .outputs = {"MODEL"},
          .newer_schema = true,
          .run = run};
}

graph::NodeType experimental(graph::NodeType type) {
  type.experimental = true;
  return type;
}

graph::NodeType shown_as(const char* name, graph::NodeType type) {
  type.display_name = name;
  return type;
}

graph::NodeType patched_model(graph::NodeType type) {
  type.outputs = {{"MODEL", "patched_model"}};
  return type;
}

graph::Input fine(const char* name, double usual, double least, double most) {
  return number(name, {.def = usual, .min = least, .max = most, .step = 0.01});
}

graph::Input percent(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.001});
}

graph::Input layers(const char* name) { return text(name, {.def = "7, 8, 9", .multiline = false}); }

void add_formulas(graph::Catalog& catalog) {
  const char* const guidance = "advanced/guidance";
  const char* const testing = "_for_testing";
  catalog.add(experimental(patched_model(patch(
      "CFGNorm", guidance, "nodes_cfg",
      {fine("strength", 1.0, 0.0, 100.0),
       graph::optional(boolean(
           "pre_cfg",
           {.def = false,
            .tooltip = "In place of the usual guidance, which also lengthens what is too short; "
                       "else after it, where only what is too long is cut."}))},
      run_norm))));
  catalog.add(patched_model(patch("CFGZeroStar", guidance, "nodes_cfg", {}, run_zero_star)));
  catalog.add(shown_as("Tangential Damping CFG",
                       patched_model(patch("TCFG", guidance, "nodes_tcfg", {}, run_damping))));
  catalog.add(
      shown_as("Adaptive Projected Guidance",
               patch("APG", "sampling/custom_sampling", "nodes_apg",
                     {fine("eta", 1.0, -10.0, 10.0),
                      number("norm_threshold", {.def = 5.0, .min = 0.0, .max = 50.0, .step = 0.1}),
                      fine("momentum", 0.0, -5.0, 1.0)},
                     run_projected)));
  catalog.add(
      patch("Epsilon Scaling", "model_patches/unet", "nodes_eps",
            {number("scaling_factor",
                    {.def = 1.005, .min = 0.5, .max = 1.5, .step = 0.001, .display = "number"})},
            run_epsilon));
  catalog.add(patch("RenormCFG", "advanced/model", "nodes_lumina2",
                    {number("cfg_trunc", {.def = 100, .min = 0.0, .max = 100.0, .step = 0.01}),
                     fine("renorm_cfg", 1.0, 0.0, 100.0)},
                    run_renorm));
  catalog.add(experimental(
      shown_as("Mahiro is so cute that she deserves a better guidance function!! (。・ω・。)",
               patched_model(patch("Mahiro", testing, "nodes_mahiro", {}, run_mahiro)))));
  catalog.add(experimental(shown_as(
      "FreSca", patch("FreSca", testing, "nodes_fresca",
                      {number("scale_low", {.def = 1.0, .min = 0, .max = 10, .step = 0.01}),
                       number("scale_high", {.def = 1.25, .min = 0, .max = 10, .step = 0.01}),
                       integer("freq_cutoff", {.def = 20, .min = 1, .max = 10000, .step = 1})},
                      run_frequencies))));
  auto perp_neg = experimental(shown_as(
      "Perp-Neg (DEPRECATED by PerpNegGuider)",
      patch("PerpNeg", testing, "nodes_perpneg",
            {link("empty_conditioning", "CONDITIONING"), fine("neg_scale", 1.0, 0.0, 100.0)},
            run_perp_neg)));
  perp_neg.deprecated = true;
  catalog.add(std::move(perp_neg));
  catalog.add(
      experimental(shown_as("Differential Diffusion",
                            patch("DifferentialDiffusion", testing, "nodes_differential_diffusion",
                                  {optional(fine("strength", 1.0, 0.0, 1.0))}, run_differential))));
}

void add_scales(graph::Catalog& catalog) {
  catalog.add(shown_as(
      "CFG Override",
      patch("CFGOverride", "model/sampling/guiders", "nodes_custom_sampler",
            {number("cfg", {.def = 1.0, .min = 0.0, .max = 100.0, .step = 0.1, .round = 0.01}),
             percent("start_percent", 0.0), percent("end_percent", 1.0)},
            run_override)));
  auto video = [&](const char* name, void (*run)(Call&)) {
    auto type = patch(
        name, "sampling/video_models", "nodes_video_model",
        {number("min_cfg", {.def = 1.0, .min = 0.0, .max = 100.0, .step = 0.5, .round = 0.01})},
        run);
    type.newer_schema = false;
    catalog.add(std::move(type));
  };
  video("VideoLinearCFGGuidance", run_frames<false>);
  video("VideoTriangleCFGGuidance", run_frames<true>);
}

void add_changed_networks(graph::Catalog& catalog) {
  const char* const guidance = "advanced/guidance";
  const auto scale = number("scale", {.def = 3.0, .min = 0.0, .max = 10.0, .step = 0.1});
  catalog.add(experimental(
      patch("SkipLayerGuidanceSD3", guidance, "nodes_sd3",
            {layers("layers"), scale, percent("start_percent", 0.01), percent("end_percent", 0.15)},
            run_skip_layers_sd3)));
  catalog.add(experimental(patch(
      "SkipLayerGuidanceDiT", guidance, "nodes_slg",
      {layers("double_layers"), layers("single_layers"), scale, percent("start_percent", 0.01),
       percent("end_percent", 0.15), fine("rescaling_scale", 0.0, 0.0, 10.0)},
      run_skip_layers)));
  catalog.add(experimental(patch("SkipLayerGuidanceDiTSimple", guidance, "nodes_slg",
                                 {layers("double_layers"), layers("single_layers"),
                                  percent("start_percent", 0.0), percent("end_percent", 1.0)},
                                 run_skip_layers_simple)));
  catalog.add(
      patch("PerturbedAttentionGuidance", "model_patches/unet", "nodes_pag",
            {number("scale", {.def = 3.0, .min = 0.0, .max = 100.0, .step = 0.01, .round = 0.01})},
            run_perturbed));
  catalog.add(experimental(
      shown_as("Self-Attention Guidance",
               patch("SelfAttentionGuidance", "_for_testing", "nodes_sag",
                     {fine("scale", 0.5, -2.0, 5.0),
                      number("blur_sigma", {.def = 2.0, .min = 0.0, .max = 10.0, .step = 0.1})},
                     run_self_attention))));
  using Kind = sampling::CachedSteps::Kind;
  const std::vector<graph::Input> cache = {
      fine("reuse_threshold", 0.2, 0.0, 3.0), fine("start_percent", 0.15, 0.0, 1.0),
      fine("end_percent", 0.95, 0.0, 1.0), boolean("verbose", {.def = false})};
  const char* const debug = "advanced/debug/model";
  catalog.add(experimental(shown_as(
      "EasyCache", patch("EasyCache", debug, "nodes_easycache", cache, run_cache<Kind::Easy>))));
  catalog.add(experimental(shown_as(
      "LazyCache", patch("LazyCache", debug, "nodes_easycache", cache, run_cache<Kind::Lazy>))));
}

void add_operations(graph::Catalog& catalog) {
  const char* const folder = "latent/advanced/operations";
  auto node = [&](const char* name, std::vector<graph::Input> inputs, const char* output,
                  void (*run)(Call&)) {
    auto type = experimental(patch(name, folder, "nodes_latent", {}, run));
    type.inputs = std::move(inputs);
    type.outputs = {output};
    catalog.add(std::move(type));
  };
  const auto operation = link("operation", "LATENT_OPERATION");
  node("LatentApplyOperation", {link("samples", "LATENT"), operation}, "LATENT",
       run_apply_operation);
  node("LatentApplyOperationCFG", {link("model", "MODEL"), operation}, "MODEL",
       run_apply_operation_cfg);
  node("LatentOperationTonemapReinhard", {fine("multiplier", 1.0, 0.0, 100.0)}, "LATENT_OPERATION",
       run_tonemap);
  node("LatentOperationSharpen",
       {integer("sharpen_radius", {.def = 9, .min = 1, .max = 31, .step = 1}),
        number("sigma", {.def = 1.0, .min = 0.1, .max = 10.0, .step = 0.1}),
        fine("alpha", 0.1, 0.0, 5.0)},
       "LATENT_OPERATION", run_sharpen);
}

}  // namespace

void add_guidance_nodes(graph::Catalog& catalog) {
  add_scales(catalog);
  add_formulas(catalog);
  add_changed_networks(catalog);
  add_operations(catalog);
}

}  // namespace distorch::nodes
