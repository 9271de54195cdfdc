#pragma once
#include "distorch/models/family.h"

namespace distorch::models::sd3 {

/// Stable Diffusion 3 medium and 3.5 (medium and large), told by the joint blocks of text and
/// picture. Original and diffusers names. Text: CLIP-L, OpenCLIP-G and T5, each optional.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::sd3
