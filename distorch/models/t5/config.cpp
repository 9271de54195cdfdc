#include "distorch/models/t5/config.h"

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::t5 {

using weights::Checkpoint;

namespace {

constexpr const char* kSecondBias =
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";

Checkpoint any_text_part(const Checkpoint& file) {
  if (!file.has("encoder.block.0.layer.0.SelfAttention.k.weight") ||
      !file.has("encoder.final_layer_norm.weight"))
    return {};
  auto part = file;
  if (!part.has("shared.weight")) part.rename("encoder.embed_tokens.weight", "shared.weight");
  return part;
}

}  // namespace

Checkpoint text_part(const Checkpoint& file) {
  return file.has(kSecondBias) ? Checkpoint{} : any_text_part(file);
}

Checkpoint umt5_text_part(const Checkpoint& file) {
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
