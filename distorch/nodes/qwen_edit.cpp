// Prompts that speak of pictures, for models that edit them.
#include <fmt/format.h>

#include <cmath>

#include "distorch/models/flow_recipes.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::link;
using graph::Value;

namespace {

constexpr double kSeenPixels = 384.0 * 384.0, kEncodedPixels = 1024.0 * 1024.0;
constexpr int kMostPictures = 3;

/// A picture [B, H, W, C] in its own aspect with about so many pixels, sides multiples of `step`.
Tensor scaled(const Tensor& image, double pixels, std::int64_t step) {
  auto height = static_cast<double>(image.size(1)), width = static_cast<double>(image.size(2));
  auto factor = std::sqrt(pixels / (height * width)) / static_cast<double>(step);
  auto side = [&](double size) {
    return std::max<std::int64_t>(1, round_half_even(size * factor)) * step;
  };
  return resize_image(image, {side(width), side(height), "area"});
}

Tensor colours(const Tensor& image) { return image.narrow(3, 0, 3); }

/// What the VAE makes of a picture, where one is linked.
void add_reference(Call& call, const Tensor& image, std::vector<Tensor>& latents) {
  if (!call.has("vae")) return;
  latents.push_back(vae_coding_of(call).encode(colours(image)));
}

void encode(Call& call, models::Prompt prompt, std::vector<Tensor> latents) {
  auto conditioning = encode_prompts(text_encoders_of(call, "clip"), {std::move(prompt), {}},
                                     call.context<ModelCache>());
  for (auto& item : conditioning) item.reference_latents = latents;
  call.out(0, Value::of("CONDITIONING", std::move(conditioning)));
}

void run_edit(Call& call) {
  models::Prompt prompt(call.text("prompt"));
  std::vector<Tensor> latents;
  if (call.has("image")) {
    auto image = scaled(call.get<Tensor>("image"), kEncodedPixels, 1);
    prompt.pictures.push_back(colours(image));
    add_reference(call, image, latents);
  }
  encode(call, std::move(prompt), std::move(latents));
}

void run_edit_plus(Call& call) {
  models::Prompt prompt;
  prompt.frame = models::kQwenEditFrame;
  std::vector<Tensor> latents;
  for (int i = 1; i <= kMostPictures; ++i) {
    auto input = fmt::format("image{}", i);
    if (!call.has(input)) continue;
    const auto& image = call.get<Tensor>(input);
    prompt.pictures.push_back(colours(scaled(image, kSeenPixels, 1)));
    add_reference(call, scaled(image, kEncodedPixels, 8), latents);
    prompt.text += fmt::format("Picture {}: <|vision_start|><|image_pad|><|vision_end|>", i);
  }
  prompt.text += call.text("prompt");
  encode(call, std::move(prompt), std::move(latents));
}

/// Blank latents of a picture and of the layers that it is to be taken apart into.
void run_empty_layers(Call& call) {
  constexpr std::int64_t kChannels = 16, kPixelsOfCell = 8;
  sampling::Latent latent;
  latent.samples =
      at::zeros({call.integer("batch_size"), kChannels, call.integer("layers") + 1,
                 call.integer("height") / kPixelsOfCell, call.integer("width") / kPixelsOfCell});
  call.out(0, graph::Value::of("LATENT", std::move(latent)));
}

}  // namespace

void add_qwen_edit_nodes(graph::Catalog& catalog) {
  auto prompt = [] { return graph::text("prompt", {.multiline = true, .dynamic_prompts = true}); };
  auto picture = [](const char* name) { return graph::optional(link(name, "IMAGE")); };
  catalog.add({
      .name = "TextEncodeQwenImageEdit",
      .category = "advanced/conditioning",
      .python_module = "comfy_extras.nodes_qwen",
      .inputs = {link("clip", "CLIP"), prompt(), graph::optional(link("vae", "VAE")),
                 picture("image")},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_edit,
  });
  catalog.add({
      .name = "TextEncodeQwenImageEditPlus",
      .category = "advanced/conditioning",
      .python_module = "comfy_extras.nodes_qwen",
      .inputs = {link("clip", "CLIP"), prompt(), graph::optional(link("vae", "VAE")),
                 picture("image1"), picture("image2"), picture("image3")},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_edit_plus,
  });
  auto side = [](const char* name) {
    return graph::integer(name, {.def = 640, .min = 16, .max = 16384, .step = 16});
  };
  catalog.add({
      .name = "EmptyQwenImageLayeredLatentImage",
      .display_name = "Empty Qwen Image Layered Latent",
      .category = "model/latent/qwen",
      .python_module = "comfy_extras.nodes_qwen",
      .inputs = {side("width"), side("height"),
                 graph::integer("layers", {.def = 3, .min = 0, .max = 16384, .step = 1}),
                 graph::integer("batch_size", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_empty_layers,
  });
}

}  // namespace distorch::nodes
