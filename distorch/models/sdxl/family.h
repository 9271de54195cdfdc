#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::sdxl {

/// Stable Diffusion XL by its shapes: base, turbo, inpainting, and smaller ones (SSD-1B, Segmind
/// Vega, KOALA), with CLIP-L and OpenCLIP-G, and a vector of the pooled text and six sizes. For
/// models::families().
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

/// Its refiner: OpenCLIP-G alone, four sizes and an aesthetic score.
std::unique_ptr<const Family> detect_refiner(const weights::Checkpoint& below,
                                             const weights::Checkpoint& file);

}  // namespace distorch::models::sdxl
