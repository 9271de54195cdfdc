#pragma once
#include <cstdint>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::ltxv {

/// Shape of an LTX-Video transformer. Sizes of the published 2B model are the defaults.
struct Config {
  std::int64_t width = 2048;
  std::int64_t heads = 32;
  std::int64_t mlp_width = 8192;
  std::int64_t layers = 28;
  std::int64_t channels = 128;     // of the latent
  std::int64_t text_width = 4096;  // of the text's states
  /// Whether the first latent frame counts as one frame of the clip, and not as eight (0.9.5 on).
  bool causal_times = false;
};

/// Frames and pixels, each way, that a cell of the latent stands for.
inline constexpr std::int64_t kFramesOfCell = 8, kPixelsOfCell = 32;

/// The transformer's tensors under Lightricks' names ("transformer_blocks.0.attn1.to_q.weight"),
/// from those or diffusers' (LTXVideoTransformer3DModel). Empty where there is none, or a relative
/// with sound (LTX-2).
weights::Checkpoint with_our_names(const weights::Checkpoint& below);

/// Reads the sizes off the shapes, and what shapes do not tell off the file's metadata
/// (file_config.h). Errors: Error(MissingWeight), Error(Shape), Error(Format).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::ltxv
