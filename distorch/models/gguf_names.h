#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// The same tensors under the names that our models ask for, where they come from a GGUF file that
/// calls a text encoder's as llama.cpp does ("enc.blk.0.attn_q.weight" for T5, "blk.0.attn_q.weight"
/// for Qwen) and decoded as gguf_as_in_comfyui() says; any other checkpoint as it is. Told by the
/// file's "general.architecture".
/// Source: ComfyUI-GGUF loader.py, T5_SD_MAP and LLAMA_SD_MAP.
weights::Checkpoint with_our_names(weights::Checkpoint file);

/// The same with the numbers of GGUF blocks rounded to `dtype` (Half or BFloat16) where they are
/// decoded.
weights::Checkpoint gguf_rounded(weights::Checkpoint file, at::ScalarType dtype);

/// The same as ComfyUI-GGUF decodes by default, every step in float16, where it decodes the type by
/// itself (quant/gguf_in_half.h).
weights::Checkpoint gguf_as_in_comfyui(weights::Checkpoint file);

/// "general.architecture" of the GGUF file that the tensors come from; "" where they come from none.
std::string gguf_architecture(const weights::Checkpoint& file);

/// Theirs and ours: one after the other, each wherever it stands in what the ones before have left.
using Replacements = std::vector<std::pair<std::string_view, std::string_view>>;
std::string renamed(std::string name, const Replacements& replacements);

}  // namespace distorch::models
