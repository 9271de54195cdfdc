#include "distorch/models/qwen/config.h"

#include <optional>

#include "distorch/base/error.h"
#include "distorch/models/gguf_names.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::qwen {

using weights::Checkpoint;

namespace {

const std::string kLayer = "model.layers.0.";

Checkpoint renamed(const Checkpoint& file) {
  if (file.has_prefix("language_model.model.layers.0.")) return file.part("language_model.");
  if (!file.has_prefix("model.language_model.layers.0.")) return file;
  auto part = file.part("model.language_model.", "model.");
  auto vision = file.part("model.visual.", "visual.");
  for (const auto& [name, stored] : vision.tensors()) part.add(name, stored);
  return part;
}

std::optional<TextKind> kind_of(const Checkpoint& part) {
  const auto* norm = part.find(kLayer + "post_attention_layernorm.weight");
  // Gemma and Qwen3-VL look alike but for these.
  if (!norm || norm->shape.size() != 1 || part.has(kLayer + "post_feedforward_layernorm.weight") ||
      part.has_prefix("visual.deepstack_merger_list."))
    return {};
  auto width = norm->shape[0];
  if (const auto* bias = part.find(kLayer + "self_attn.k_proj.bias")) {
    constexpr std::int64_t kKeysOf3B = 256;
    if (bias->shape.size() != 1 || bias->shape[0] == kKeysOf3B) return {};
    return TextKind::Qwen25Vl7B;
  }
  if (!part.has(kLayer + "self_attn.q_norm.weight")) {
    // Gemma 2B has this width.
    constexpr std::int64_t kGemma = 2304;
    if (width == kGemma || !part.has(kLayer + "self_attn.k_proj.weight")) return {};
    return TextKind::Llama3_8B;
  }
  if (width == 4096) return TextKind::Qwen3_8B;
  // Widths of 0.6B, 1.7B and 32B.
  if (width == 1024 || width == 2048 || width == 5120) return {};
  return TextKind::Qwen3_4B;
}

}  // namespace

Checkpoint text_part(const Checkpoint& file, TextKind kind) {
  auto part = renamed(file);
  return kind_of(part) == kind ? part : Checkpoint{};
}

TextConfig text_config(const Checkpoint& part) {
  TextConfig c;
  const auto attention = kLayer + "self_attn.";
  c.vocabulary = size_of(part, "model.embed_tokens.weight", 0);
  c.width = size_of(part, "model.embed_tokens.weight", 1);
  c.layers = part.count("model.layers.");
  c.mlp_width = size_of(part, kLayer + "mlp.gate_proj.weight", 0);
  c.head_norms = part.has(attention + "q_norm.weight");
  c.qkv_biases = part.has(attention + "q_proj.bias");
  if (!c.head_norms && !c.qkv_biases) {
    c.norm_epsilon = 1e-5;
    c.theta = 500000;
    c.neighbours = gguf_architecture(part) == "llama";
  }
  if (c.head_norms) c.head_width = size_of(part, attention + "q_norm.weight", 0);
  auto queries = size_of(part, attention + "q_proj.weight", 0);
  auto keys = size_of(part, attention + "k_proj.weight", 0);
  c.heads = queries / c.head_width;
  c.key_heads = keys / c.head_width;
  if (c.head_width % 8 != 0 || c.key_heads == 0 || queries % c.head_width != 0 ||
      keys % c.head_width != 0 || c.heads % c.key_heads != 0)
    throw Error(ErrorKind::Shape, part.path(),
                "holds a text encoder whose heads do not divide its width");
  return c;
}

bool has_vision(const Checkpoint& part) { return part.has("visual.patch_embed.proj.weight"); }

VisionConfig vision_config(const Checkpoint& part) {
  VisionConfig c;
  const std::string patches = "visual.patch_embed.proj.weight";
  c.width = size_of(part, patches, 0);
  c.frames_apart = part.has(patches + ".1");
  c.frames = c.frames_apart ? 2 : size_of(part, patches, 2);
  c.patch = size_of(part, patches, c.frames_apart ? 2 : 3);
  c.layers = part.count("visual.blocks.");
  c.mlp_width = size_of(part, "visual.blocks.0.mlp.gate_proj.weight", 0);
  c.out_width = size_of(part, "visual.merger.mlp.2.weight", 0);
  if (c.width % (4 * c.heads) != 0)
    throw Error(ErrorKind::Shape, part.path(),
                "holds a vision tower whose heads do not divide its width");
  return c;
}

}  // namespace distorch::models::qwen
