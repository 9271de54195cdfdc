#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::wan {

/// Wan 2.1 and 2.2 video models. Null where the tensors are no such model's.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

/// Adds the layers that hear speech ("blocks.0.cross_attn.k_proj.weight", ...) of a file of
/// FantasyTalking to the tensors of a Wan model: detect() then tells a model with them.
/// Error(Shape) naming both files where those are not the layers of this model.
void add_speech(weights::Checkpoint& model, const weights::Checkpoint& speech);

}  // namespace distorch::models::wan
