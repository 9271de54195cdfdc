#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::sd1 {

/// Stable Diffusion 1.x: a UNet with 1x1 convolutions around its transformers, CLIP-L. For
/// models::families().
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::sd1
