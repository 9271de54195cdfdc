#include <fmt/format.h>

#include <array>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::clip_vision {

using weights::Checkpoint;

namespace {

using Renamed = std::pair<const char*, const char*>;

constexpr std::array<Renamed, 8> kOpenClipNames = {{
    {"class_embedding", "vision_model.embeddings.class_embedding"},
    {"conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
    {"positional_embedding", "vision_model.embeddings.position_embedding.weight"},
    {"ln_pre.weight", "vision_model.pre_layrnorm.weight"},
    {"ln_pre.bias", "vision_model.pre_layrnorm.bias"},
    {"ln_post.weight", "vision_model.post_layernorm.weight"},
    {"ln_post.bias", "vision_model.post_layernorm.bias"},
    {"proj", "visual_projection"},
}};

constexpr std::array<Renamed, 5> kOpenClipLayer = {{
    {"ln_1", "layer_norm1"},
    {"ln_2", "layer_norm2"},
    {"mlp.c_fc", "mlp.fc1"},
    {"mlp.c_proj", "mlp.fc2"},
    {"attn.out_proj", "self_attn.out_proj"},
}};

Checkpoint from_open_clip(const Checkpoint& file) {
  Checkpoint part;
  auto add = [&](const std::string& old_name, const std::string& name) {
    if (const auto* stored = file.find(old_name)) part.add(name, *stored);
  };
  for (const auto& [old_name, name] : kOpenClipNames) add(old_name, name);
  for (int i = 0, count = file.count("transformer.resblocks."); i < count; ++i) {
    auto old_layer = fmt::format("transformer.resblocks.{}.", i),
         layer = fmt::format("vision_model.encoder.layers.{}.", i);
    for (std::string end : {"weight", "bias"}) {
      for (const auto& [old_name, name] : kOpenClipLayer)
        add(old_layer + old_name + "." + end, layer + name + "." + end);
      const auto* fused = file.find(old_layer + "attn.in_proj_" + end);
      if (!fused || fused->shape.empty()) continue;
      auto rows = fused->shape[0] / 3;
      for (int k = 0; k < 3; ++k)
        part.add_rows(fmt::format("{}self_attn.{}_proj.{}", layer, "qkv"[k], end), *fused, k * rows,
                      rows);
    }
  }
  return part;
}

}  // namespace

Checkpoint vision_part(const Checkpoint& file) {
  for (const std::string prefix : {"visual.", "embedder.model.visual.", ""}) {
    auto below = prefix.empty() ? file : file.part(prefix);
    if (below.has("transformer.resblocks.0.attn.in_proj_weight") && below.has("conv1.weight"))
      return from_open_clip(below);
  }
  if (!file.has("vision_model.embeddings.patch_embedding.weight")) return {};
  auto part = file.part("vision_model.", "vision_model.");
  if (const auto* projection = file.find("visual_projection.weight"))
    part.add("visual_projection.weight", *projection);
  const std::string projector = "multi_modal_projector.";
  auto shown = file.part(projector, projector);
  for (const auto& [name, stored] : shown.tensors()) part.add(name, stored);
  return part;
}

VisionConfig vision_config(const Checkpoint& part) {
  constexpr std::int64_t layers_of_h = 31;
  const auto& patch = part.shape("vision_model.embeddings.patch_embedding.weight");
  const auto& positions = part.shape("vision_model.embeddings.position_embedding.weight");
  const auto& mlp = part.shape("vision_model.encoder.layers.0.mlp.fc1.weight");
  VisionConfig c;
  if (patch.size() != 4 || patch[1] != 3 || positions.size() != 2 || positions[0] < 1 ||
      mlp.size() != 2 || patch[0] % c.heads != 0)
    throw Error(ErrorKind::Format, part.path(), "holds a picture encoder of an unknown kind");
  c.width = patch[0];
  c.patch = patch[2];
  c.positions = positions[0];
  c.layers = part.count("vision_model.encoder.layers.");
  c.mlp_width = mlp[0];
  bool siglip = !part.has("vision_model.embeddings.class_embedding");
  c.kind = siglip                    ? VisionKind::SigLip
           : c.layers >= layers_of_h ? VisionKind::ClipH
                                     : VisionKind::ClipL;
  auto side = static_cast<std::int64_t>(
      std::llround(std::sqrt(static_cast<double>(c.positions - (siglip ? 0 : 1)))));
  if (side * side != c.positions - (siglip ? 0 : 1))
    throw Error(ErrorKind::Format, part.path(), "holds a picture encoder for no square pictures");
  c.image_size = side * c.patch;
  // The published one looks at a few pixels more than its tokens cover.
  if (siglip && side == 27 && c.patch == 14) c.image_size = 384;
  const auto* straight = part.find("visual_projection.weight");
  const auto* transposed = straight ? nullptr : part.find("visual_projection");
  c.projection_transposed = transposed != nullptr;
  c.projection = straight     ? size_of(part, "visual_projection.weight", 0)
                 : transposed ? size_of(part, "visual_projection", 1)
                              : 0;
  if (part.has_prefix("multi_modal_projector."))
    c.shown_width = size_of(part, "multi_modal_projector.linear_1.weight", 0);
  return c;
}

}  // namespace distorch::models::clip_vision
