#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::wan {

/// Wan 2.1 and 2.2 video models. Null where the tensors are no such model's.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::wan
