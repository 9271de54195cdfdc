// Nodes of LTX-Video's packs that workflows use: the loader of ComfyUI-LTXVideo as it was until
// March 2025, and the perturbed attention of ComfyUI-LTXTricks.
#include <fmt/format.h>

#include <limits>
#include <set>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/ltxv.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;

namespace {

constexpr const char* kLoaderModule = "custom_nodes.ComfyUI-LTXVideo";
constexpr const char* kTricksModule = "custom_nodes.ComfyUI-LTXTricks";
constexpr const char* kFamily = "LTX-Video";

/// What travels over links of type ATTN_OVERRIDE: numbers of blocks.
struct AttentionOverride {
  std::set<std::int64_t> layers = {14};
};

/// Error(Usage) that names the file where the MODEL is of another family.
const Model& video_model_of(Call& call) {
  const auto& model = call.get<Model>("model");
  if (auto name = model.loaded->family->name(); name != kFamily)
    throw Error(
        ErrorKind::Usage, model.loaded->weights->checkpoint().path(),
        fmt::format("is a model of {}, and {} changes models of {}", name, call.place(), kFamily));
  return model;
}

void run_loader(Call& call) {
  auto& models = call.context<ModelCache>();
  auto path = call.context<ModelFolders>().get("checkpoints", call.text("ckpt_name"));
  auto placement = placement_of(call);
  auto loaded = models.diffusion(path, placement);
  if (loaded->family->name() != kFamily)
    throw Error(ErrorKind::Format, path.string(),
                fmt::format("holds a model of {}, and {} loads those of {}: CheckpointLoaderSimple "
                            "loads others",
                            loaded->family->name(), call.place(), kFamily));
  auto vae = models.vae(path, placement);
  if (!vae)
    throw Error(ErrorKind::MissingWeight, path.string(),
                "holds no autoencoder (tensors 'vae.decoder...'): load one with VAELoader");
  const bool wide = call.text("dtype") == "float32";
  const auto dtype = wide ? at::kFloat : at::kBFloat16;
  if (loaded->weights->options().dtype != dtype)
    loaded = changed_model(*loaded, {.key = wide ? "fp32" : "bf16", .family = {}, .dtype = dtype},
                           call.context<streaming::Engine>());
  call.out(0, Value::of("MODEL", Model{.loaded = std::move(loaded)}));
  call.out(1, Value::of("VAE", Vae{std::move(vae)}));
}

/// The network is what the original exchanges it for: it has the places that the other nodes need.
void run_modify(Call& call) {
  video_model_of(call);
  call.out(0, call.in("model"));
}

/// "3, 14": whole numbers between commas; what is none is passed over.
void run_override(Call& call) {
  AttentionOverride chosen;
  chosen.layers.clear();
  const auto text = call.text("layers") + ",";
  for (std::size_t begin = 0, end = 0; (end = text.find(',', begin)) != std::string::npos;
       begin = end + 1) {
    auto word = text.substr(begin, end - begin);
    const auto first = word.find_first_not_of(" \t\r\n"), last = word.find_last_not_of(" \t\r\n");
    word = first == std::string::npos ? "" : word.substr(first, last - first + 1);
    constexpr std::size_t most_digits = 6;
    if (!word.empty() && word.size() <= most_digits &&
        word.find_first_not_of("0123456789") == std::string::npos)
      chosen.layers.insert(std::stoll(word));
  }
  call.out(0, Value::of("ATTN_OVERRIDE", std::move(chosen)));
}

/// The node's own scale in place of the sampler's, then away from what the network says where the
/// tokens of some blocks do not look at each other.
void run_perturbed(Call& call) {
  auto model = video_model_of(call);
  auto chosen = call.has("attn_override") ? call.get<AttentionOverride>("attn_override")
                                          : AttentionOverride();
  constexpr float always = std::numeric_limits<float>::max();
  auto scale = call.number("scale");
  // Without a scale the original gives the positive estimate.
  model.guidance.push_back(sampling::CfgOverride{
      .cfg = scale == 0 ? 1.0 : call.number("cfg"), .sigma_start = always, .sigma_end = 0});
  if (scale > 0) {
    sampling::SkipLayers stage{.blocks = {},
                               .scale = scale,
                               .sigma_start = always,
                               .sigma_end = 0,
                               .rescaling = call.number("rescale")};
    for (auto layer : chosen.layers)
      stage.blocks.insert(fmt::format("double_blocks.{}.attn1", layer));
    model.guidance.push_back(std::move(stage));
  }
  call.out(0, Value::of("MODEL", std::move(model)));
}

void add_loader(graph::Catalog& catalog, App& app) {
  graph::NodeType loader{
      .name = "LTXVLoader",
      .display_name = "🅛🅣🅧 LTXV Loader",
      .category = "lightricks/LTXV",
      .description =
          "Opens the diffusion model and the autoencoder of an LTX-Video checkpoint. Its "
          "text encoder, T5-XXL, is loaded by CLIPLoader with type ltxv.",
      .python_module = kLoaderModule,
      .inputs = {choice("ckpt_name", model_choices(app, "checkpoints"),
                        {.extra = graph::Json::object()}),
                 choice("dtype", {"bfloat16", "float32"}, {.def = "bfloat16"})},
      .outputs = {{"MODEL", "model"}, {"VAE", "vae"}},
      .run = run_loader,
      .change_key = when_replaced(app, {{"checkpoints", "ckpt_name"}}),
  };
  // Of its variants the reference has the one that takes a device.
  add_with_device(catalog, std::move(loader));
}

}  // namespace

void add_ltxv_pack_nodes(graph::Catalog& catalog, App& app) {
  add_loader(catalog, app);
  catalog.add({
      .name = "ModifyLTXModel",
      .display_name = "Modify LTX Model",
      .category = "ltxtricks",
      .python_module = kTricksModule,
      .inputs = {link("model", "MODEL")},
      .outputs = {"MODEL"},
      .run = run_modify,
  });
  catalog.add({
      .name = "LTXAttnOverride",
      .display_name = "LTX Attention Override",
      .category = "ltxtricks/attn",
      .python_module = kTricksModule,
      .inputs = {graph::text("layers", {.multiline = true})},
      .outputs = {"ATTN_OVERRIDE"},
      .run = run_override,
  });
  auto fine = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 100.0, .step = 0.01, .round = 0.01});
  };
  catalog.add({
      .name = "LTXPerturbedAttention",
      .display_name = "LTX Apply Perturbed Attention",
      .category = "ltxtricks/attn",
      .python_module = kTricksModule,
      .inputs = {link("model", "MODEL"), fine("scale", 2.0), fine("rescale", 0.5), fine("cfg", 3.0),
                 graph::optional(link("attn_override", "ATTN_OVERRIDE"))},
      .outputs = {"MODEL"},
      .run = run_perturbed,
  });
}

}  // namespace distorch::nodes
