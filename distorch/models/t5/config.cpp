#include "distorch/models/t5/config.h"

#include <array>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::t5 {

using weights::Checkpoint;

namespace {

constexpr const char* kSecondBias =
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";

/// What the published UMT5 files of Wan call the parts of a layer. Source: Wan (Wan Team 2025),
/// wan/modules/t5.py.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kWanNames = {{
    {"norm1.", "layer.0.layer_norm."},
    {"attn.", "layer.0.SelfAttention."},
    {"pos_embedding.embedding.", "layer.0.SelfAttention.relative_attention_bias."},
    {"norm2.", "layer.1.layer_norm."},
    {"ffn.gate.0.", "layer.1.DenseReluDense.wi_0."},
    {"ffn.fc1.", "layer.1.DenseReluDense.wi_1."},
    {"ffn.fc2.", "layer.1.DenseReluDense.wo."},
}};

/// A file under Wan's names under this model's; any other as it is.
Checkpoint without_wan_names(const Checkpoint& file) {
  constexpr std::string_view blocks = "blocks.";
  if (!file.has("token_embedding.weight") || !file.has("blocks.0.pos_embedding.embedding.weight"))
    return file;
  auto part = file;
  part.rename("token_embedding.weight", "shared.weight");
  part.rename("norm.weight", "encoder.final_layer_norm.weight");
  for (const auto& [name, stored] : file.tensors()) {
    auto dot = name.find('.', blocks.size());
    if (!name.starts_with(blocks) || dot == std::string::npos) continue;
    const auto inside = std::string_view(name).substr(dot + 1);
    for (const auto& [theirs, ours] : kWanNames)
      if (inside.starts_with(theirs))
        part.rename(name, "encoder.block." + name.substr(blocks.size(), dot + 1 - blocks.size()) +
                              std::string(ours) + std::string(inside.substr(theirs.size())));
  }
  return part;
}

constexpr const char* kFirstKeys = "encoder.block.0.layer.0.SelfAttention.k.weight";

/// ByT5 is told by the width of its keys.
bool is_byt5(const Checkpoint& file) {
  constexpr std::int64_t kWidth = 384;
  const auto* keys = file.find(kFirstKeys);
  return keys && !keys->shape.empty() && keys->shape[0] == kWidth && !file.has(kSecondBias);
}

Checkpoint any_text_part(const Checkpoint& file) {
  if (!file.has(kFirstKeys) || !file.has("encoder.final_layer_norm.weight")) return {};
  auto part = file;
  if (!part.has("shared.weight")) part.rename("encoder.embed_tokens.weight", "shared.weight");
  return part;
}

}  // namespace

Checkpoint text_part(const Checkpoint& file) {
  return file.has(kSecondBias) || is_byt5(file) ? Checkpoint{} : any_text_part(file);
}

Checkpoint byt5_text_part(const Checkpoint& file) {
  return is_byt5(file) ? any_text_part(file) : Checkpoint{};
}

Checkpoint umt5_text_part(const Checkpoint& given) {
  auto file = without_wan_names(given);
  return file.has(kSecondBias) ? any_text_part(file) : Checkpoint{};
}

TextConfig text_config(const Checkpoint& part) {
  const std::string block = "encoder.block.0.layer.";
  const std::string attention = block + "0.SelfAttention.", mlp = block + "1.DenseReluDense.";
  TextConfig c;
  c.vocabulary = size_of(part, "shared.weight", 0);
  c.width = size_of(part, "shared.weight", 1);
  c.inner = size_of(part, attention + "q.weight", 0);
  c.buckets = size_of(part, attention + "relative_attention_bias.weight", 0);
  c.heads = size_of(part, attention + "relative_attention_bias.weight", 1);
  c.layers = part.count("encoder.block.");
  c.gated = part.has(mlp + "wi_1.weight");
  c.mlp_width = size_of(part, mlp + (c.gated ? "wi_0.weight" : "wi.weight"), 0);
  c.bias_everywhere = part.has(kSecondBias);
  if (c.inner % c.heads != 0 || c.buckets % 4 != 0)
    throw Error(ErrorKind::Shape, part.path(),
                "holds a T5 encoder whose heads do not divide its width");
  return c;
}

}  // namespace distorch::models::t5
