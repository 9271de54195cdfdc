#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::flux {

/// FLUX.1 dev, schnell, Fill, Canny, Depth, Kontext; original or diffusers names.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);
/// FLUX.2 dev and klein.
std::unique_ptr<const Family> detect_second(const weights::Checkpoint& below,
                                            const weights::Checkpoint& file);

}  // namespace distorch::models::flux
