#pragma once
#include <cstdint>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::qwen {

/// Language models of Qwen and Llama as text encoders. Sizes of Qwen3-4B are the defaults.
struct TextConfig {
  std::int64_t width = 2560;
  std::int64_t heads = 32;
  std::int64_t key_heads = 8;  // of keys and values; divides heads
  std::int64_t head_width = 128;
  std::int64_t layers = 36;
  std::int64_t mlp_width = 9728;
  std::int64_t vocabulary = 151936;
  bool head_norms = true;   // RMS norms of queries and keys (Qwen3)
  bool qkv_biases = false;  // Qwen2.5
  double norm_epsilon = 1e-6;
  double theta = 1e6;  // of the rotary positions
  /// The numbers of a head that turn together are neighbours, as llama.cpp rearranges Llama's
  /// queries and keys; else they are half a head apart.
  bool neighbours = false;
};

/// The vision tower of Qwen2.5-VL. Sizes of the 7B model are the defaults.
struct VisionConfig {
  std::int64_t width = 1280;
  std::int64_t heads = 16;
  std::int64_t layers = 32;
  std::int64_t mlp_width = 3420;
  std::int64_t patch = 14;  // pixels, both ways
  std::int64_t frames = 2;  // of a patch; a picture is shown twice
  std::int64_t out_width = 3584;
  bool frames_apart = false;  // each frame of a patch has a weight of its own, as in GGUF files
};

/// Kinds of encoders that share this architecture.
enum class TextKind { Qwen25Vl7B, Qwen3_4B, Qwen3_8B, Llama3_8B };

/// The tensors of an encoder of that kind under this model's names ("model.layers.0....",
/// "visual.blocks.0...."); takes "model.language_model." and "model.visual." too, and LLaVA's
/// "language_model.model.". Empty where the
/// file holds another one or none. Source of the rule: ComfyUI comfy/sd.py, detect_te_model.
weights::Checkpoint text_part(const weights::Checkpoint& file, TextKind kind);

/// Read the sizes off the shapes. Error(MissingWeight), Error(Shape).
TextConfig text_config(const weights::Checkpoint& part);
bool has_vision(const weights::Checkpoint& part);
VisionConfig vision_config(const weights::Checkpoint& part);

}  // namespace distorch::models::qwen
