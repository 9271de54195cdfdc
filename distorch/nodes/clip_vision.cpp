#include "distorch/nodes/clip_vision.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/one_call.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vision_states.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Conditioning;

namespace {

Tensor on_host(const Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::kCPU, at::kFloat) : tensor;
}

/// What comes out where nothing is computed: the shapes count.
VisionOutput blank_states(const models::clip_vision::VisionConfig& c, std::int64_t items) {
  auto states = at::zeros({items, c.positions, c.width});
  bool tokens = c.kind == models::clip_vision::VisionKind::SigLip;
  return {states, states,
          tokens ? states : at::zeros({items, c.projection ? c.projection : c.width}),
          c.shown_width > 0 ? at::zeros({items, c.positions - 1, c.shown_width}) : Tensor()};
}

void run_load_vision(Call& call) {
  auto path = call.context<ModelFolders>().get("clip_vision", call.text("clip_name"));
  auto loaded = call.context<ModelCache>().vision(path, placement_of(call));
  if (!loaded)
    throw Error(ErrorKind::Format, path.string(),
                "holds no picture encoder (CLIP ViT-L, ViT-H, ViT-bigG or SigLIP would fit)");
  call.out(0, Value::of("CLIP_VISION", ClipVision{std::move(loaded)}));
}

void run_encode(Call& call) {
  call.out(0, Value::of("CLIP_VISION_OUTPUT",
                        look_at(call, call.get<ClipVision>("clip_vision"),
                                image_input(call, "image"), call.text("crop") == "center")));
}

void run_load_style(Call& call) {
  auto path = call.context<ModelFolders>().get("style_models", call.text("style_model_name"));
  call.out(0, Value::of("STYLE_MODEL", StyleModel{call.context<ModelCache>().style(path, {})}));
}

/// What is added to the scores of pairs of tokens, [B, tokens + 1, tokens + 1], the last one
/// standing for all of the picture's: those of `old` (undefined: none), and between them and the
/// picture `added` new tokens, which all but themselves see with `bias`. Source: ComfyUI nodes.py,
/// StyleModelApply.
Tensor wider_bias(const Tensor& old, std::int64_t batch, std::int64_t text, std::int64_t added,
                  const Tensor& bias) {
  constexpr std::int64_t picture = 1;
  auto all = text + added + picture;
  auto wider = at::zeros({batch, all, all}, at::TensorOptions(at::kHalf));
  auto part = [&](const Tensor& t, bool row_picture, bool column_picture) {
    auto size = t.size(1) - picture;
    return t.narrow(1, row_picture ? size : 0, row_picture ? picture : text)
        .narrow(2, column_picture ? size : 0, column_picture ? picture : text);
  };
  for (bool row : {false, true}) {
    for (bool column : {false, true})
      if (old.defined()) part(wider, row, column).copy_(part(old, row, column));
    wider.narrow(1, row ? text + added : 0, row ? picture : text)
        .narrow(2, text, added)
        .copy_(bias);
  }
  return wider;
}

/// A conditioning with tokens behind its own; a mask over tokens lets them be seen. `strength`: how
/// much attention the others pay to them, by the logarithm added to scores.
sampling::ConditioningItem with_tokens(sampling::ConditioningItem item, const Tensor& tokens,
                                       double strength) {
  auto text = item.cross_attn;
  item.cross_attn = at::cat({text, tokens.expand({text.size(0), -1, -1}).to(text.options())}, 1);
  auto mask = item.tensors.find("attention_mask");
  if (mask != item.tensors.end() && mask->second.dim() == 2)
    mask->second = at::cat(
        {mask->second, at::ones({mask->second.size(0), tokens.size(1)}, mask->second.options())},
        1);
  // Where there is a bias already, even no further one needs its place.
  bool has_bias = mask != item.tensors.end() && mask->second.dim() == 3;
  if (has_bias || strength != 1.0)
    item.tensors["attention_mask"] =
        wider_bias(has_bias ? mask->second : Tensor(), text.size(0), text.size(1), tokens.size(1),
                   at::log(at::tensor(static_cast<float>(strength))));
  return item;
}

void run_apply_style(Call& call) {
  const auto& style = *call.get<StyleModel>("style_model").loaded;
  const auto& states = call.get<VisionOutput>("clip_vision_output").last;
  if (states.size(2) != style.network->width())
    throw Error(
        ErrorKind::Shape, call.place(),
        fmt::format("the style model {} takes states of width {}, the picture encoder gives "
                    "{}: it belongs to another one (Redux goes with SigLIP)",
                    style.weights->options().name, style.network->width(), states.size(2)));
  auto strength = call.number("strength");
  const bool multiplies = call.text("strength_type") == "multiply";
  auto tokens =
      on_host(run_network(call, *call.get<StyleModel>("style_model").loaded, states,
                          [](const auto& network, const Tensor& x) { return network.forward(x); }));
  if (call.context<streaming::Engine>().plan_only()) tokens = style.network->blank(states);
  // The tokens of several pictures follow each other.
  tokens = tokens.flatten(0, 1).unsqueeze(0);
  if (multiplies) tokens = tokens * strength;
  Conditioning result;
  for (const auto& item : call.get<Conditioning>("conditioning")) {
    if (item.cross_attn.defined() && item.cross_attn.size(2) != tokens.size(2))
      throw Error(
          ErrorKind::Shape, call.place(),
          fmt::format("the style model makes tokens of width {}, the text has {}: it belongs "
                      "to another kind of model",
                      tokens.size(2), item.cross_attn.size(2)));
    result.push_back(with_tokens(item, tokens, multiplies ? 1.0 : strength));
  }
  call.out(0, Value::of("CONDITIONING", std::move(result)));
}

// One picture more that the model is to vary: "unclip.N" beside what the conditioning holds.
void run_unclip(Call& call) {
  auto conditioning = call.get<Conditioning>("conditioning");
  auto strength = call.number("strength");
  if (strength != 0)
    for (auto& item : conditioning) {
      int index = 0;
      while (item.tensors.count(fmt::format("unclip.{}", index))) ++index;
      auto name = fmt::format("unclip.{}", index);
      item.tensors[name] = call.get<VisionOutput>("clip_vision_output").embeds;
      item.numbers[name + ".strength"] = strength;
      item.numbers[name + ".noise_augmentation"] = call.number("noise_augmentation");
    }
  call.out(0, Value::of("CONDITIONING", std::move(conditioning)));
}

void run_unclip_checkpoint(Call& call) {
  load_checkpoint(call, {});
  auto path = call.context<ModelFolders>().get("checkpoints", call.text("ckpt_name"));
  call.out(3, Value::of("CLIP_VISION", ClipVision{call.context<ModelCache>().vision(path, {})}));
}

void add_loaders(graph::Catalog& catalog, App& app) {
  auto files = [&app](const char* type) { return model_choices(app, type); };
  add_placed_loader(catalog,
                    {
                        .name = "CLIPVisionLoader",
                        .display_name = "Load CLIP Vision",
                        .category = "loaders",
                        .inputs = {choice("clip_name", files("clip_vision"))},
                        .outputs = {"CLIP_VISION"},
                        .run = run_load_vision,
                        .change_key = when_replaced(app, {{"clip_vision", "clip_name"}}),
                    },
                    /*text_encoder=*/true);
  catalog.add({
      .name = "StyleModelLoader",
      .display_name = "Load Style Model",
      .category = "loaders",
      .inputs = {choice("style_model_name", files("style_models"))},
      .outputs = {"STYLE_MODEL"},
      .run = run_load_style,
      .change_key = when_replaced(app, {{"style_models", "style_model_name"}}),
  });
  catalog.add({
      .name = "unCLIPCheckpointLoader",
      .category = "loaders",
      .inputs = {choice("ckpt_name", files("checkpoints"))},
      .outputs = {"MODEL", "CLIP", "VAE", "CLIP_VISION"},
      .run = run_unclip_checkpoint,
      .change_key = when_replaced(app, {{"checkpoints", "ckpt_name"}}),
  });
}

}  // namespace

VisionOutput look_at(Call& call, const ClipVision& vision, const Tensor& image, bool crop) {
  if (!vision.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                "the checkpoint that CLIP_VISION comes from has no picture encoder");
  return look_at_pixels(
      call, vision, models::clip_vision::prepared(image, vision.loaded->network->config(), crop));
}

VisionOutput look_at_pixels(Call& call, const ClipVision& vision, const Tensor& pixels) {
  const auto& config = vision.loaded->network->config();
  auto states = run_network(call, *vision.loaded, pixels, [](const auto& network, const Tensor& x) {
    return network.forward(x);
  });
  if (call.context<streaming::Engine>().plan_only()) states = blank_states(config, pixels.size(0));
  return {on_host(states.last), on_host(states.penultimate), on_host(states.embeds),
          on_host(states.shown)};
}

void add_clip_vision_nodes(graph::Catalog& catalog, App& app) {
  add_loaders(catalog, app);
  catalog.add({
      .name = "CLIPVisionEncode",
      .display_name = "CLIP Vision Encode",
      .category = "conditioning",
      .inputs = {link("clip_vision", "CLIP_VISION"), link("image", "IMAGE"),
                 choice("crop", {"center", "none"})},
      .outputs = {"CLIP_VISION_OUTPUT"},
      .run = run_encode,
  });
  catalog.add({
      .name = "StyleModelApply",
      .display_name = "Apply Style Model",
      .category = "conditioning/style_model",
      .inputs = {link("conditioning", "CONDITIONING"), link("style_model", "STYLE_MODEL"),
                 link("clip_vision_output", "CLIP_VISION_OUTPUT"),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.001}),
                 choice("strength_type", {"multiply", "attn_bias"})},
      .outputs = {"CONDITIONING"},
      .run = run_apply_style,
  });
  catalog.add({
      .name = "unCLIPConditioning",
      .category = "conditioning",
      .inputs = {link("conditioning", "CONDITIONING"),
                 link("clip_vision_output", "CLIP_VISION_OUTPUT"),
                 number("strength", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01}),
                 number("noise_augmentation", {.def = 0.0, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {"CONDITIONING"},
      .run = run_unclip,
  });
}

}  // namespace distorch::nodes
