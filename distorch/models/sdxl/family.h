#pragma once
#include <memory>

#include "distorch/models/family.h"
#include "distorch/models/sd/image_prompt.h"

namespace distorch::models::sdxl {

/// Stable Diffusion XL by its shapes: base, turbo, inpainting, and smaller ones (SSD-1B, Segmind
/// Vega, KOALA), with CLIP-L and OpenCLIP-G, and a vector of the pooled text and six sizes. For
/// models::families().
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

/// The family with one more picture that it looks at beside the text. Null where it is not SDXL.
std::shared_ptr<const Family> looking_at(const Family& family, sd::ImagePrompt prompt);
/// Shape of its UNet. Null where it is not SDXL (the refiner is not).
const sd::UNetConfig* config_of(const Family& family);

/// Its refiner: OpenCLIP-G alone, four sizes and an aesthetic score.
std::unique_ptr<const Family> detect_refiner(const weights::Checkpoint& below,
                                             const weights::Checkpoint& file);

}  // namespace distorch::models::sdxl
