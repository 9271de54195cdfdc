#pragma once
#include "distorch/models/family.h"

namespace distorch::models::z_image {

/// Z-Image and Z-Image-Turbo, told by the refiners of text and picture. Original and diffusers
/// names. Text: Qwen3-4B.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

/// Lumina Image 2.0, of the same making with another modulation. Text: Gemma 2 2B.
std::unique_ptr<const Family> detect_lumina(const weights::Checkpoint& below,
                                            const weights::Checkpoint& file);

}  // namespace distorch::models::z_image
