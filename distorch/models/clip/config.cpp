#include "distorch/models/clip/config.h"

#include <array>
#include <utility>

#include "distorch/base/error.h"

namespace distorch::models::clip {
namespace {

using weights::Checkpoint;

// Prefixes under which text encoders lie in whole checkpoints; the last is a file of its own.
constexpr std::array prefixes = {"cond_stage_model.transformer.", "cond_stage_model.model.",
                                 "conditioner.embedders.0.model.",
                                 "conditioner.embedders.0.transformer.", ""};

constexpr std::array<std::pair<const char*, const char*>, 5> open_clip_parts = {{
    {"ln_1", "layer_norm1"},
    {"ln_2", "layer_norm2"},
    {"mlp.c_fc", "mlp.fc1"},
    {"mlp.c_proj", "mlp.fc2"},
    {"attn.out_proj", "self_attn.out_proj"},
}};

constexpr std::array<std::pair<const char*, const char*>, 4> open_clip_fixed = {{
    {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
    {"ln_final.weight", "text_model.final_layer_norm.weight"},
    {"ln_final.bias", "text_model.final_layer_norm.bias"},
}};

void add_if_there(Checkpoint& to, const Checkpoint& from, const std::string& old_name,
                  const std::string& name) {
  if (const auto* stored = from.find(old_name)) to.add(name, *stored);
}

// The projection (and with it a number that only training used) is a matrix [out, in] under "...weight", its transpose under the bare name.
void add_projection(Checkpoint& to, const Checkpoint& from) {
  add_if_there(to, from, "text_projection.weight", "text_projection.weight");
  add_if_there(to, from, "text_projection", "text_projection");
  add_if_there(to, from, "logit_scale", "logit_scale");
}

void add_open_clip_layer(Checkpoint& to, const Checkpoint& from, int index) {
  auto old_layer = "transformer.resblocks." + std::to_string(index) + ".";
  auto layer = "text_model.encoder.layers." + std::to_string(index) + ".";
  for (std::string end : {"weight", "bias"}) {
    for (const auto& [old_part, part] : open_clip_parts)
      add_if_there(to, from, old_layer + old_part + "." + end, layer + part + "." + end);
    const auto* fused = from.find(old_layer + "attn.in_proj_" + end);
    if (!fused || fused->shape.empty()) continue;
    auto rows = fused->shape[0] / 3;
    for (int i = 0; i < 3; ++i)
      to.add_rows(layer + "self_attn." + "qkv"[i] + "_proj." + end, *fused, i * rows, rows);
  }
}

Checkpoint from_open_clip(const Checkpoint& file) {
  Checkpoint part;
  for (const auto& [old_name, name] : open_clip_fixed) add_if_there(part, file, old_name, name);
  for (int i = 0, count = file.count("transformer.resblocks."); i < count; ++i)
    add_open_clip_layer(part, file, i);
  add_projection(part, file);
  return part;
}

Checkpoint from_transformers(const Checkpoint& file, const std::string& old_prefix) {
  Checkpoint part = file.part(old_prefix, "text_model.");
  add_projection(part, file);
  return part;
}

}  // namespace

Checkpoint text_part_below(const Checkpoint& file, const std::string& prefix) {
  auto below = prefix.empty() ? file : file.part(prefix);
  if (below.has("transformer.resblocks.0.ln_1.weight")) return from_open_clip(below);
  if (below.has_prefix("text_model.encoder.layers.0."))
    return from_transformers(below, "text_model.");
  // Some SD 1.x files lack the level "text_model".
  if (!prefix.empty() && below.has_prefix("encoder.layers.0.")) return from_transformers(below, "");
  return {};
}

Checkpoint text_part(const Checkpoint& file) {
  for (const std::string prefix : prefixes)
    if (auto part = text_part_below(file, prefix); !part.empty()) return part;
  return {};
}

TextKind detect_text_kind(const Checkpoint& part) {
  constexpr int kLayersOfG = 31, kLayersOfH = 23;
  auto layers = part.count("text_model.encoder.layers.");
  return layers >= kLayersOfG   ? TextKind::ClipG
         : layers >= kLayersOfH ? TextKind::ClipH
                                : TextKind::ClipL;
}

TextConfig text_config(const Checkpoint& part, TextKind kind) {
  TextConfig c;
  c.kind = kind;
  const auto& tokens = part.shape("text_model.embeddings.token_embedding.weight");
  const auto& mlp = part.shape("text_model.encoder.layers.0.mlp.fc1.weight");
  const auto& positions = part.shape("text_model.embeddings.position_embedding.weight");
  if (tokens.size() != 2 || mlp.size() != 2 || positions.size() != 2)
    throw Error(ErrorKind::Shape, part.path(),
                "holds a text encoder whose embeddings or layers are no matrices");
  if (tokens[0] < 1 || positions[0] < 1)
    throw Error(ErrorKind::Shape, part.path(), "holds a text encoder without words or positions");
  c.vocabulary = tokens[0];
  c.width = tokens[1];
  c.heads = std::max<std::int64_t>(1, c.width / 64);
  if (c.width % c.heads != 0)
    throw Error(ErrorKind::Shape, part.path(),
                "holds a text encoder of a width that its heads do not divide");
  c.positions = positions[0];
  c.layers = part.count("text_model.encoder.layers.");
  c.mlp_width = mlp[0];
  c.end_token = std::min<std::int64_t>(c.end_token, c.vocabulary - 1);
  const auto* straight = part.find("text_projection.weight");
  const auto* transposed = straight ? nullptr : part.find("text_projection");
  c.projection_transposed = transposed != nullptr;
  if (straight && straight->shape.size() == 2) c.projection = straight->shape[0];
  if (transposed && transposed->shape.size() == 2) c.projection = transposed->shape[1];
  return c;
}

}  // namespace distorch::models::clip
