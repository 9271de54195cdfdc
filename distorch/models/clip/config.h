#pragma once
#include <cstdint>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::clip {

/// The text encoders that share one architecture.
enum class TextKind {
  ClipL,  // OpenAI ViT-L/14 (SD 1.x, SDXL): quick GELU, padded with the end token
  ClipH,  // OpenCLIP ViT-H/14 (SD 2.x): exact GELU, padded with 0
  ClipG,  // OpenCLIP ViT-bigG/14 (SDXL): as ClipH
};

struct TextConfig {
  TextKind kind = TextKind::ClipL;
  std::int64_t width = 768;
  std::int64_t heads = 12;  // width / 64
  std::int64_t layers = 12;
  std::int64_t mlp_width = 3072;
  std::int64_t vocabulary = 49408;
  std::int64_t positions = 77;
  std::int64_t projection = 0;  // width of the pooled output's projection; 0: the file has none
  bool projection_transposed = false;  // stored as [width, projection], used as x · P
  std::int64_t end_token = 49407;      // the pooled output is taken at its first occurrence
};

/// The text encoder's tensors of a file under this model's names
/// ("text_model.encoder.layers.0...."): takes transformers names, with or without "text_model." and
/// "cond_stage_model.transformer." in front, and OpenCLIP names
/// ("...transformer.resblocks.0.attn.in_proj_weight"), whose fused projections become row ranges.
/// Empty where the file has no text encoder.
weights::Checkpoint text_part(const weights::Checkpoint& file);
/// The same for the one below `prefix`, where a checkpoint holds several.
weights::Checkpoint text_part_below(const weights::Checkpoint& file, const std::string& prefix);

/// ClipG for 31 layers or more, ClipH for 23 or more, else ClipL: for files that hold a text encoder
/// alone; in a whole checkpoint the family says which it is. Source: ComfyUI comfy/sd.py,
/// detect_te_model.
TextKind detect_text_kind(const weights::Checkpoint& text_part);

/// Reads the sizes off the shapes. Error(MissingWeight) where a tensor that says a size is absent.
TextConfig text_config(const weights::Checkpoint& text_part, TextKind kind);

}  // namespace distorch::models::clip
