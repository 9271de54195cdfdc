#pragma once
#include "distorch/models/sd3/config.h"
#include "tests/models/tiny.h"

namespace distorch::test {

/// The halves of dimension 0 the other way round.
inline at::Tensor swapped(const at::Tensor& x) {
  auto halves = x.chunk(2);
  return at::cat({halves[1], halves[0]});
}

/// Original tensors as the diffusers library has them.
inline std::map<std::string, at::Tensor> as_diffusers(
    const std::map<std::string, at::Tensor>& tensors, std::int64_t blocks) {
  std::map<std::string, std::string> theirs;
  for (const auto& [their, our] : models::sd3::diffusers_layers(blocks)) theirs[our] = their;
  auto last = "joint_blocks." + std::to_string(blocks - 1) + ".context_block.adaLN_modulation.1";
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, value] : tensors) {
    if (name.starts_with("controlnet_blocks.") || name.starts_with("pos_embed_input.")) {
      result[name] = value;
      continue;
    }
    if (name == "pos_embed") {
      result["pos_embed.pos_embed"] = value;
      continue;
    }
    auto dot = name.rfind('.');
    auto layer = name.substr(0, dot), end = name.substr(dot);
    if (layer.ends_with(".qkv")) {
      auto parts = value.chunk(3);
      for (int i = 0; i < 3; ++i)
        result[theirs.at(layer.substr(0, layer.size() - 3) + "qkv"[i]) + end] =
            parts[i].contiguous();
      continue;
    }
    bool swaps = (layer == last && tensors.count("final_layer.linear.weight")) ||
                 layer == "final_layer.adaLN_modulation.1";
    result[theirs.at(layer) + end] = swaps ? swapped(value) : value;
  }
  return result;
}

}  // namespace distorch::test
