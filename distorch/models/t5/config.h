#pragma once
#include <cstdint>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::t5 {

/// The encoder half of T5. Sizes of T5-XXL v1.1 are the defaults.
struct TextConfig {
  std::int64_t width = 4096;
  std::int64_t inner = 4096;  // heads times the width of a head
  std::int64_t heads = 64;
  std::int64_t layers = 24;
  std::int64_t mlp_width = 10240;
  std::int64_t vocabulary = 32128;
  std::int64_t buckets = 32;     // of distances between tokens
  bool gated = true;             // false: the old form, one projection and ReLU
  bool bias_everywhere = false;  // every layer has its own bias of positions (UMT5)
};

/// The tensors of a T5 encoder whose layers share one bias of positions, under this model's names ("encoder.block.0....", "shared.weight").
/// Empty where the file holds none, or ByT5.
weights::Checkpoint text_part(const weights::Checkpoint& file);
/// The same of ByT5 small, which is of that kind. Source of the rule: ComfyUI comfy/sd.py,
/// detect_te_model.
weights::Checkpoint byt5_text_part(const weights::Checkpoint& file);
/// The same of one whose layers have a bias each (UMT5), also from the names of Wan's own files.
weights::Checkpoint umt5_text_part(const weights::Checkpoint& file);

/// Reads the sizes off the shapes. Error(MissingWeight), Error(Shape).
TextConfig text_config(const weights::Checkpoint& part);

}  // namespace distorch::models::t5
