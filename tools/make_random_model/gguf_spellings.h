#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// What llama.cpp calls the tensors of text encoders, for those who write GGUF files: the other way
// round than models/gguf_names.h (whose source it shares), and independent of it.
namespace distorch::random_model {

/// Our spelling and theirs; each stands at most once in a name.
using Replacements = std::vector<std::pair<std::string_view, std::string_view>>;

inline const Replacements kT5 = {{"encoder.final_layer_norm", "enc.output_norm"},
                                 {"encoder.block.", "enc.blk."},
                                 {"layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"},
                                 {"layer.0.SelfAttention.q", "attn_q"},
                                 {"layer.0.SelfAttention.k", "attn_k"},
                                 {"layer.0.SelfAttention.v", "attn_v"},
                                 {"layer.0.SelfAttention.o", "attn_o"},
                                 {"layer.0.layer_norm", "attn_norm"},
                                 {"layer.1.DenseReluDense.wi_0", "ffn_gate"},
                                 {"layer.1.DenseReluDense.wi_1", "ffn_up"},
                                 {"layer.1.DenseReluDense.wo", "ffn_down"},
                                 {"layer.1.layer_norm", "ffn_norm"},
                                 {"shared.", "token_embd."}};
inline const Replacements kQwen = {{"model.layers.", "blk."},
                                   {"self_attn.q_norm", "attn_q_norm"},
                                   {"self_attn.k_norm", "attn_k_norm"},
                                   {"self_attn.q_proj", "attn_q"},
                                   {"self_attn.k_proj", "attn_k"},
                                   {"self_attn.v_proj", "attn_v"},
                                   {"self_attn.o_proj", "attn_output"},
                                   {"post_attention_layernorm", "ffn_norm"},
                                   {"input_layernorm", "attn_norm"},
                                   {"mlp.up_proj", "ffn_up"},
                                   {"mlp.down_proj", "ffn_down"},
                                   {"mlp.gate_proj", "ffn_gate"},
                                   {"model.embed_tokens", "token_embd"},
                                   {"model.norm", "output_norm"}};

/// A name of ours with all of the replacements.
inline std::string spelled(std::string name, const Replacements& names) {
  for (const auto& [ours, theirs] : names)
    if (const auto at = name.find(ours); at != std::string::npos)
      name.replace(at, ours.size(), theirs);
  return name;
}

}  // namespace distorch::random_model
