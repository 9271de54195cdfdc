#pragma once
#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::qwen_image {

/// Where the pictures that a model looks at stand beside the one it makes. Source: ComfyUI
/// comfy/ldm/qwen_image/model.py.
enum class ReferenceMethod {
  Index,              // one behind the other on the first axis
  Offset,             // on the first axis at one place, beside or below each other
  NegativeIndex,      // one before the other on the first axis
  IndexTimestepZero,  // as Index, and without noise whatever the picture's
};

/// Shape of a Qwen-Image transformer or of a ControlNet for it.
struct Config {
  std::int64_t width = 3072;
  std::int64_t heads = 24;
  std::int64_t layers = 60;
  std::int64_t text_width = 3584;
  std::int64_t latent_channels = 16;
  /// Qwen-Image-Layered: an embedding of what kind of picture is made is added to the timestep's.
  bool picture_kind = false;
  ReferenceMethod references = ReferenceMethod::Index;  // where the conditioning says nothing

  /// Channels of the picture's latent of each model patch (block_patch.h) that runs with it.
  std::vector<std::int64_t> patch_channels;

  std::int64_t head_width() const { return width / heads; }
  /// Numbers of a head that turn with the token's time, row and column.
  std::vector<std::int64_t> axes() const;
};

/// Cells of a latent that one token stands for, each way.
inline constexpr std::int64_t kPatch = 2;

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::qwen_image
