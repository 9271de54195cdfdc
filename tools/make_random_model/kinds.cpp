#include "tools/make_random_model/kinds.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/models/clip/text_model.h"
#include "distorch/models/flux/network.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/qwen_image/transformer.h"
#include "distorch/models/sd/unet.h"
#include "distorch/models/sd3/mmdit.h"
#include "distorch/models/t5/text_model.h"
#include "distorch/models/vae/autoencoder.h"
#include "distorch/models/z_image/next_dit.h"
#include "tools/make_random_model/kinds_florence2.h"
#include "tools/make_random_model/kinds_hunyuan.h"
#include "tools/make_random_model/kinds_ltxv.h"
#include "tools/make_random_model/kinds_mmaudio.h"
#include "tools/make_random_model/kinds_wan.h"
#include "tools/make_random_model/shapes.h"

namespace distorch::random_model {
namespace {

template <typename Model, typename Config>
Shapes of_model(const Config& config, const std::string& prefix = "") {
  Model model(config);
  return declared(model.manifest(), prefix);
}

/// `full` blocks, or one or two of them.
std::int64_t blocks(Size size, std::int64_t full, std::int64_t few = 2) {
  return size == Size::Full ? full : few;
}

Shapes clip_text(models::clip::TextKind kind, Size size, const std::string& prefix = "") {
  using models::clip::TextKind;
  models::clip::TextConfig config;
  config.kind = kind;
  if (kind == TextKind::ClipG) {
    config.width = 1280;
    config.layers = 32;
    config.mlp_width = 5120;
    config.projection = 1280;
  }
  config.heads = config.width / 64;
  // The loaders know OpenCLIP-G by its number of layers.
  if (kind == TextKind::ClipL) config.layers = blocks(size, 12);
  if (kind == TextKind::ClipG && size == Size::Tiny) config.mlp_width = 64;
  return of_model<models::clip::TextModel>(config, prefix);
}

/// CLIP's tensors as OpenCLIP names them, with queries, keys and values in one: so files of SDXL have
/// them.
Shapes open_clip_names(const Shapes& shapes, const std::string& prefix) {
  const std::vector<std::pair<std::string, std::string>> renamed = {
      {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
      {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
      {"text_model.final_layer_norm.", "ln_final."},
      {"text_model.text_projection.weight", "text_projection"},
      {"text_projection.weight", "text_projection"},
      {"text_model.encoder.layers.", "transformer.resblocks."},
      {".self_attn.q_proj.", ".attn.in_proj_"},
      {".self_attn.out_proj.", ".attn.out_proj."},
      {".layer_norm", ".ln_"},
      {".mlp.fc1.", ".mlp.c_fc."},
      {".mlp.fc2.", ".mlp.c_proj."},
  };
  Shapes result;
  for (auto [name, shape] : shapes) {
    if (name.find(".self_attn.k_proj.") != std::string::npos ||
        name.find(".self_attn.v_proj.") != std::string::npos)
      continue;
    if (name.find(".self_attn.q_proj.") != std::string::npos) shape[0] *= 3;
    for (const auto& [from, to] : renamed)
      if (auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
    result.push_back({prefix + name, shape});
  }
  return result;
}

Shapes picture_vae(std::int64_t latent_channels, Size size, const std::string& prefix = "") {
  models::vae::VaeConfig config;
  config.z_channels = config.latent_channels = latent_channels;
  config.quant = latent_channels == 4;
  if (size == Size::Tiny) config.channels = {32, 32, 64, 64};
  return of_model<models::vae::Autoencoder>(config, prefix);
}

/// Wan 2.1's and Qwen-Image's.
Shapes causal_vae(Size size) {
  using models::causal_vae::Layer;
  models::causal_vae::Config config;
  const std::int64_t base = size == Size::Tiny ? 16 : 96;
  const std::vector<std::int64_t> widths = {base, base, 2 * base, 4 * base, 4 * base};
  config.first = base;
  config.middle = 4 * base;
  for (int level = 0; level < 4; ++level) {
    const auto in = widths[level], out = widths[level + 1];
    config.down.push_back({.in = in, .out = out});
    config.down.push_back({.in = out, .out = out});
    if (level < 3)
      config.down.push_back(
          {.kind = Layer::Kind::Resample, .in = out, .out = out, .time = level > 0});
  }
  for (int level = 0; level < 4; ++level) {
    // Each step up has halved the channels.
    const auto out = widths[4 - level];
    config.up.push_back({.in = level == 0 ? out : widths[5 - level] / 2, .out = out});
    config.up.push_back({.in = out, .out = out});
    config.up.push_back({.in = out, .out = out});
    if (level < 3)
      config.up.push_back(
          {.kind = Layer::Kind::Resample, .in = out, .out = out / 2, .time = level < 2});
  }
  return of_model<models::causal_vae::CausalAutoencoder>(config);
}

Shapes flux2(std::int64_t hidden, std::int64_t depth, std::int64_t single_depth,
             std::int64_t context, Size size) {
  models::flux::Config config;
  config.hidden = hidden;
  config.mlp = 3 * hidden;
  config.depth = blocks(size, depth, 1);
  config.single_depth = blocks(size, single_depth);
  config.in_channels = config.out_channels = 128;
  config.patch = 1;
  config.context_width = context;
  config.vector_width = 0;
  config.guidance = config.qkv_bias = config.bias = false;
  config.shared_modulation = config.gated_mlp = true;
  config.axes = {32, 32, 32, 32};
  config.theta = 2000;
  config.text_axis = 3;
  config.reference = models::flux::ReferenceMethod::Index;
  return of_model<models::flux::Flux>(config);
}

Shapes flux2_vae(Size size) {
  models::vae::VaeConfig config;
  config.z_channels = config.latent_channels = 32;
  config.normalized_patches = true;
  if (size == Size::Tiny) config.channels = {32, 32, 64, 64};
  return of_model<models::vae::Autoencoder>(config);
}

enum class UNet { Sd15, Xl, Vega };

Shapes sd_unet(UNet kind, Size size) {
  const bool xl = kind != UNet::Sd15;
  models::sd::UNetConfig c;
  if (size == Size::Tiny) {
    c.model_channels = xl ? 64 : 32;
    c.time_width = 4 * c.model_channels;
  }
  const auto m = c.model_channels;
  if (xl) {
    c.context_width = 2048;
    c.vector_width = 2816;
    c.linear_projection = true;
    c.channels = {m, 2 * m, 4 * m};
    c.res_blocks = {2, 2, 2};
    c.depth_in = {0, 0, 2, 2, 10, 10};
    c.depth_out = {10, 10, 10, 2, 2, 2, 0, 0, 0};
    c.depth_middle = 10;
    if (kind == UNet::Vega) {
      c.depth_in = {0, 0, 1, 1, 2, 2};
      c.depth_out = {2, 2, 2, 1, 1, 1, 0, 0, 0};
      c.depth_middle = -1;
    }
  } else {
    c.channels = {m, 2 * m, 4 * m, 4 * m};
    c.res_blocks = {2, 2, 2, 2};
    c.depth_in = {1, 1, 1, 1, 1, 1, 0, 0};
    c.depth_out = {0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  }
  return of_model<models::sd::UNet>(c, "model.diffusion_model.");
}

Shapes sd15(Size size) {
  return sd_unet(UNet::Sd15, size) +
         clip_text(models::clip::TextKind::ClipL, size, "cond_stage_model.transformer.") +
         picture_vae(4, size, "first_stage_model.");
}

Shapes sdxl(UNet kind, Size size) {
  using models::clip::TextKind;
  return sd_unet(kind, size) +
         clip_text(TextKind::ClipL, size, "conditioner.embedders.0.transformer.") +
         open_clip_names(clip_text(TextKind::ClipG, size), "conditioner.embedders.1.model.") +
         picture_vae(4, size, "first_stage_model.");
}

Shapes flux(bool guidance, Size size) {
  models::flux::Config config;
  config.guidance = guidance;
  config.depth = blocks(size, 19);
  config.single_depth = blocks(size, 38);
  if (size == Size::Tiny) {
    config.hidden = 256;
    config.mlp = 1024;
  }
  return of_model<models::flux::Flux>(config);
}

Shapes sd3(std::int64_t depth, bool qk_norm, std::int64_t dual, Size size) {
  models::sd3::MmditConfig config;
  // Its width tells the number of blocks.
  config.blocks = size == Size::Full ? depth : 4;
  config.width = 64 * config.blocks;
  config.mlp_width = 4 * config.width;
  config.qk_norm = qk_norm;
  if (qk_norm && dual > 0) config.positions = 384;
  for (std::int64_t i = 0; i < std::min(dual, config.blocks); ++i) config.dual.insert(i);
  return of_model<models::sd3::Mmdit>(config, "model.diffusion_model.");
}

Shapes z_image(Size size) {
  models::z_image::NextDitConfig config;
  config.layers = blocks(size, 30);
  if (size == Size::Tiny) config.mlp_width = 256;
  return of_model<models::z_image::NextDit>(config);
}

Shapes qwen_image(Size size) {
  models::qwen_image::Config config;
  config.layers = blocks(size, 60);
  if (size == Size::Tiny) {
    config.width = 256;
    config.heads = 2;
  }
  return of_model<models::qwen_image::Transformer>(config);
}

Shapes t5xxl(Size size) {
  models::t5::TextConfig config;
  config.layers = blocks(size, 24);
  if (size == Size::Tiny) {
    config.inner = config.heads = 64;
    config.mlp_width = 128;
  }
  return of_model<models::t5::TextModel>(config);
}

Shapes qwen_text(models::qwen::TextConfig config, Size size) {
  // Z-Image takes the states before the last layer, and ComfyUI one more to be there.
  config.layers = blocks(size, config.layers, 3);
  if (size == Size::Tiny) config.mlp_width = 128;
  weights::Manifest manifest;
  models::qwen::TextModel model(manifest, config);
  return declared(manifest);
}

Shapes qwen25_vl(Size size) {
  return qwen_text({.width = 3584,
                    .heads = 28,
                    .key_heads = 4,
                    .layers = 28,
                    .mlp_width = 18944,
                    .vocabulary = 152064,
                    .head_norms = false,
                    .qkv_biases = true},
                   size);
}

Shapes qwen3_8b(Size size) { return qwen_text({.width = 4096, .mlp_width = 12288}, size); }

/// Pictures, and what several families share.
std::vector<Kind> image_kinds() {
  using models::clip::TextKind;
  return {
      {"sd15", "Stable Diffusion 1.5, a whole checkpoint", "checkpoints", "F16", sd15},
      {"sdxl", "Stable Diffusion XL base, a whole checkpoint", "checkpoints", "F16",
       [](Size size) { return sdxl(UNet::Xl, size); }},
      {"sdxl-vega", "Segmind Vega, a smaller SDXL, a whole checkpoint", "checkpoints", "F16",
       [](Size size) { return sdxl(UNet::Vega, size); }},
      {"flux-dev", "FLUX.1 dev, the diffusion model", "diffusion_models", "BF16",
       [](Size size) { return flux(true, size); }},
      {"flux-schnell", "FLUX.1 schnell, the diffusion model", "diffusion_models", "BF16",
       [](Size size) { return flux(false, size); }},
      {"sd3-medium", "Stable Diffusion 3 medium, the diffusion model", "diffusion_models", "F16",
       [](Size size) { return sd3(24, false, 0, size); }},
      {"sd3.5-medium", "Stable Diffusion 3.5 medium, the diffusion model", "diffusion_models",
       "BF16", [](Size size) { return sd3(24, true, 13, size); }},
      {"sd3.5-large", "Stable Diffusion 3.5 large, the diffusion model", "diffusion_models", "BF16",
       [](Size size) { return sd3(38, true, 0, size); }},
      {"qwen-image", "Qwen-Image, the diffusion model", "diffusion_models", "BF16", qwen_image},
      {"z-image", "Z-Image, the diffusion model", "diffusion_models", "BF16", z_image},
      {"flux2-klein-4b", "FLUX.2 klein 4B, the diffusion model", "diffusion_models", "BF16",
       [](Size size) { return flux2(3072, 5, 20, 7680, size); }},
      {"flux2-klein-9b", "FLUX.2 klein 9B, the diffusion model", "diffusion_models", "BF16",
       [](Size size) { return flux2(4096, 8, 24, 12288, size); }},
      {"clip-l", "CLIP-L, a text encoder", "text_encoders", "F16",
       [](Size size) { return clip_text(TextKind::ClipL, size); }},
      {"clip-g", "OpenCLIP-G, a text encoder", "text_encoders", "F16",
       [](Size size) { return clip_text(TextKind::ClipG, size); }},
      {"t5xxl", "T5-XXL v1.1, a text encoder", "text_encoders", "F16", t5xxl},
      {"qwen2.5-vl-7b", "Qwen2.5-VL 7B without its vision part, a text encoder", "text_encoders",
       "BF16", qwen25_vl},
      {"qwen3-4b", "Qwen3 4B, a text encoder", "text_encoders", "BF16",
       [](Size size) { return qwen_text({}, size); }},
      {"qwen3-8b", "Qwen3 8B, a text encoder", "text_encoders", "BF16", qwen3_8b},
      {"sd-vae", "the autoencoder of SD 1.x and SDXL", "vae", "F32",
       [](Size size) { return picture_vae(4, size); }},
      {"flux-vae", "the autoencoder of FLUX.1 and SD3 (16 channels)", "vae", "F32",
       [](Size size) { return picture_vae(16, size); }},
      {"flux2-vae", "the autoencoder of FLUX.2", "vae", "F32", flux2_vae},
      {"qwen-vae", "the autoencoder of Qwen-Image and Wan 2.1", "vae", "BF16", causal_vae},
  };
}

}  // namespace

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = [] {
    auto all = image_kinds();
    for (auto& kind : wan_kinds()) all.push_back(std::move(kind));
    for (auto& kind : florence2_kinds()) all.push_back(std::move(kind));
    for (auto& kind : hunyuan_kinds()) all.push_back(std::move(kind));
    for (auto& kind : ltxv_kinds()) all.push_back(std::move(kind));
    for (auto& kind : mmaudio_kinds()) all.push_back(std::move(kind));
    return all;
  }();
  return list;
}

const Kind& find_kind(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& kind : kinds()) {
    if (kind.name == name) return kind;
    names.push_back(kind.name);
  }
  throw Error(ErrorKind::Usage, name,
              fmt::format("is no kind of model that is known here: {}", fmt::join(names, ", ")));
}

}  // namespace distorch::random_model
