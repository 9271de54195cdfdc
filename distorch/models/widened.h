#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/models/network.h"

namespace distorch::models {

/// What a Family is beside that where LoRAs may give its weights other shapes.
class Widened {
 public:
  virtual ~Widened() = default;
  /// One of the network's inputs as it is where weights, by name, have these shapes: a wider first
  /// layer takes more channels beside the latent.
  virtual InputSpec with_shapes(
      InputSpec spec, const std::map<std::string, std::vector<std::int64_t>>& weights) const = 0;
};

}  // namespace distorch::models
