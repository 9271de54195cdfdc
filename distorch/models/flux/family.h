#pragma once
#include <memory>

#include "distorch/models/family.h"
#include "distorch/models/flux/image_prompt.h"

namespace distorch::models::flux {

/// FLUX.1 dev, schnell, Fill, Canny, Depth, Kontext; original or diffusers names.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);
/// FLUX.2 dev and klein.
std::unique_ptr<const Family> detect_second(const weights::Checkpoint& below,
                                            const weights::Checkpoint& file);

/// The family with a network that may keep what it makes of reference pictures
/// (reference_cache.h), whose tokens are then modulated as without noise. Null where it is no FLUX.
std::shared_ptr<const Family> keeping_references(const Family& family);

/// The family with one more picture that it looks at beside the text. Null where it is no FLUX.
/// Error(Usage) where it has kMostImagePrompts already.
std::shared_ptr<const Family> looking_at(const Family& family, ImagePrompt prompt);

}  // namespace distorch::models::flux
