#pragma once
#include <vector>

#include "distorch/models/clip/config.h"
#include "distorch/models/text_encoder.h"

namespace distorch::models::clip {

/// One encoder on its own: CLIP-L of SD 1.x (last layer), OpenCLIP-H of SD 2.x (last but one,
/// normed), OpenCLIP-G of SDXL's refiner (last but one). Empty where the part is.
TextRecipe single_recipe(const weights::Checkpoint& part, TextKind kind);

/// CLIP-L and OpenCLIP-G of SDXL: last but one layers side by side, pooled output of G. Empty where
/// one of them is. Source: ComfyUI comfy/sdxl_clip.py, SDXLClipModel.
TextRecipe sdxl_recipe(const weights::Checkpoint& clip_l, const weights::Checkpoint& clip_g);

/// text_part() of a file whose encoder is of this kind, told by its size; else empty.
weights::Checkpoint find(const weights::Checkpoint& file, TextKind kind);

}  // namespace distorch::models::clip
