#pragma once
#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// The same tensors under the names that our models ask for, where they come from a GGUF file that
/// calls a text encoder's as llama.cpp does ("enc.blk.0.attn_q.weight" for T5, "blk.0.attn_q.weight"
/// for Qwen); any other checkpoint as it is. Told by the file's "general.architecture".
/// Source: ComfyUI-GGUF loader.py, T5_SD_MAP and LLAMA_SD_MAP.
weights::Checkpoint with_our_names(weights::Checkpoint file);

}  // namespace distorch::models
