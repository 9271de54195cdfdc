#include "distorch/models/gguf_names.h"

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

/// Blocks of the types for which `is_meant` with their numbers rounded.
weights::Checkpoint with_rounding(weights::Checkpoint file, at::ScalarType dtype,
                                  bool (*is_meant)(std::string_view type)) {
  auto round = [&](weights::Stored& one) {
    const auto* rounded = quant::gguf_rounded_to(one.encoding, dtype);
    if (!rounded || !is_meant(rounded->name())) return false;
    one.encoding = rounded;
    return true;
  };
  const auto tensors = file.tensors();
  for (const auto& [name, stored] : tensors) {
    auto changed = stored;
    if (quant::is_joined(stored.encoding)) {
      bool any = false;
      for (auto& piece : changed.parts) any = round(piece) || any;
      if (any) file.add_joined(name, changed.parts);
    } else if (round(changed)) {
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
  return with_rounding(std::move(file), dtype, [](std::string_view) { return true; });
}

weights::Checkpoint gguf_as_in_comfyui(weights::Checkpoint file) {
  return with_rounding(std::move(file), at::kHalf, [](std::string_view type) {
    return type == "Q8_0" || type == "Q5_0" || type == "Q4_0" || type == "IQ4_NL";
  });
}

}  // namespace distorch::models
