#pragma once
#include <filesystem>
#include <memory>

#include "distorch/weights/checkpoint.h"

namespace distorch::nodes {

/// Weights of two models as one: first · the one's + second · the other's.
struct Mix {
  double first = 1.0, second = 0.0;
};

/// Writes the weights of `one`, mixed with those of `other`, to a safetensors file, one tensor in
/// memory at a time: computed in float32, stored in the one's types. What the other has not, or in
/// another shape, is written as it is, with a warning. The file goes with the result. Errors:
/// Interrupted, Usage for weights that are not plain numbers.
std::shared_ptr<const void> write_mixed(const std::filesystem::path& file,
                                        const weights::Checkpoint& one,
                                        const weights::Checkpoint& other, const Mix& mix);

}  // namespace distorch::nodes
