#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::sd2 {

/// Stable Diffusion 2.x: a UNet with matrices around its transformers, OpenCLIP-H; the noise or the
/// velocity predicted. For models::families().
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::sd2
