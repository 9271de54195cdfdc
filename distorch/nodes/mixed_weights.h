#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::nodes {

/// Weights of two models as one: first · the one's + second · the other's.
struct Mix {
  double first = 1.0, second = 0.0;
  /// Other factors for weights whose names begin so; the longest beginning counts.
  struct Part {
    std::string prefix;
    double first, second;
  };
  std::vector<Part> parts;
  /// Weights whose names end so stay the one's.
  std::vector<std::string> kept;

  /// The factors of one weight; no parts.
  Mix of(const std::string& name) const;
  /// The same text for equal mixes and for no others.
  std::string key() const;
};

/// Writes the weights of `one`, mixed with those of `other`, to a safetensors file, one tensor in
/// memory at a time: computed in float32, stored in the one's types. What the other has not, or in
/// another shape, is written as it is, with a warning. The file goes with the result. Errors:
/// Interrupted, Usage for weights that are not plain numbers.
std::shared_ptr<const void> write_mixed(const std::filesystem::path& file,
                                        const weights::Checkpoint& one,
                                        const weights::Checkpoint& other, const Mix& mix);

}  // namespace distorch::nodes
