#pragma once
#include <filesystem>
#include <optional>

#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// The file with the vision tower that goes with a text encoder of Qwen2.5-VL in a GGUF file at
/// `path` (`encoder`: its tensors): a GGUF file of the same folder with "mmproj" and the encoder's
/// name in its own, letters of either case; an ending of the encoder's name that says how it is packed
/// ("-Q4_K_M") does not count. The first by name where several are; nothing where none is, where the
/// encoder has a tower, or for another model. Source: ComfyUI-GGUF loader.py, gguf_mmproj_loader.
std::optional<std::filesystem::path> vision_file_of(const weights::Checkpoint& encoder,
                                                    const std::filesystem::path& path);
/// The same by names alone, whatever the file at `path` holds.
std::optional<std::filesystem::path> vision_file_beside(const std::filesystem::path& path);

/// The encoder with the tower's tensors under our names ("visual.blocks.0.attn.qkv.weight"): `tower`
/// has those of llama.cpp ("v.blk.0.attn_q.weight"), queries, keys and values apart, and the weights
/// of its patches a frame each. Numbers in blocks are what ComfyUI-GGUF makes of them
/// (quant/gguf_in_half.h), of queries, keys and values rounded to bfloat16 then. Error(Shape) where pieces of one weight do not fit together.
/// Source: ComfyUI-GGUF loader.py, CLIP_VISION_SD_MAP.
weights::Checkpoint with_vision(weights::Checkpoint encoder, const weights::Checkpoint& tower);

}  // namespace distorch::models
