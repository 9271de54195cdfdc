#include "distorch/models/gguf_names.h"

#include <functional>

#include "distorch/quant/gguf.h"
#include "distorch/quant/joined.h"

namespace distorch::models {

namespace {

const Replacements& t5_replacements() {
  static const Replacements list = {
      {"enc.", "encoder."},
      {".blk.", ".block."},
      {"token_embd", "shared"},
      {"output_norm", "final_layer_norm"},
      {"attn_q", "layer.0.SelfAttention.q"},
      {"attn_k", "layer.0.SelfAttention.k"},
      {"attn_v", "layer.0.SelfAttention.v"},
      {"attn_o", "layer.0.SelfAttention.o"},
      {"attn_norm", "layer.0.layer_norm"},
      {"attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"},
      {"ffn_up", "layer.1.DenseReluDense.wi_1"},
      {"ffn_down", "layer.1.DenseReluDense.wo"},
      {"ffn_gate", "layer.1.DenseReluDense.wi_0"},
      {"ffn_norm", "layer.1.layer_norm"},
  };
  return list;
}

const Replacements& llama_replacements() {
  static const Replacements list = {
      {"blk.", "model.layers."},
      {"attn_norm", "input_layernorm"},
      {"attn_q_norm.", "self_attn.q_norm."},
      {"attn_k_norm.", "self_attn.k_norm."},
      {"attn_v_norm.", "self_attn.v_norm."},
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"},
      {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ffn_norm", "post_attention_layernorm"},
      {"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output.weight", "lm_head.weight"},
  };
  return list;
}

/// Null for a model whose names are ours.
const Replacements* replacements_for(const std::string& architecture) {
  if (architecture == "t5" || architecture == "t5encoder") return &t5_replacements();
  if (architecture == "llama" || architecture == "qwen2vl" || architecture == "qwen3" ||
      architecture == "qwen3vl")
    return &llama_replacements();
  return nullptr;
}

/// With other encodings where `other` gives one.
weights::Checkpoint with_encodings(
    weights::Checkpoint file,
    const std::function<const quant::Encoding*(const quant::Encoding*)>& other) {
  auto change = [&](weights::Stored& one) {
    const auto* encoding = other(one.encoding);
    if (encoding) one.encoding = encoding;
    return encoding != nullptr;
  };
  const auto tensors = file.tensors();
  for (const auto& [name, stored] : tensors) {
    auto changed = stored;
    if (quant::is_joined(stored.encoding)) {
      bool any = false;
      for (auto& piece : changed.parts) any = change(piece) || any;
      if (any) file.add_joined(name, changed.parts);
    } else if (change(changed)) {
      file.add(name, changed);
    }
  }
  return file;
}

}  // namespace

std::string gguf_architecture(const weights::Checkpoint& file) {
  if (file.empty()) return {};
  const auto& first = file.tensors().begin()->second.file;
  if (!first || first->format() != "gguf") return {};
  const auto at = first->metadata().find("general.architecture");
  return at == first->metadata().end() ? "" : at->second;
}

std::string renamed(std::string name, const Replacements& replacements) {
  for (const auto& [theirs, ours] : replacements)
    for (auto at = name.find(theirs); at != std::string::npos;
         at = name.find(theirs, at + ours.size()))
      name.replace(at, theirs.size(), ours);
  return name;
}

weights::Checkpoint with_our_names(weights::Checkpoint file) {
  const auto* replacements = replacements_for(gguf_architecture(file));
  if (!replacements) return file;
  weights::Checkpoint result;
  for (const auto& [name, stored] : file.tensors())
    result.add(renamed(name, *replacements), stored);
  return gguf_as_in_comfyui(std::move(result));
}

weights::Checkpoint gguf_rounded(weights::Checkpoint file, at::ScalarType dtype) {
  return with_encodings(std::move(file), [dtype](const quant::Encoding* encoding) {
    return quant::gguf_rounded_to(encoding, dtype);
  });
}

weights::Checkpoint gguf_as_in_comfyui(weights::Checkpoint file) {
  return with_encodings(std::move(file), [](const quant::Encoding* encoding) {
    return quant::gguf_in_half(encoding);
  });
}

}  // namespace distorch::models
