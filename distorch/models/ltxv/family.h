#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::ltxv {

/// LTX-Video, 0.9 to 0.9.8. Null where the tensors are no such model's.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::ltxv
