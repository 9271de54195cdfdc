#pragma once
#include <string>

namespace distorch::models {

/// What a Family is beside that where some of its network's inputs count in a part of a run only.
class TimedInputs {
 public:
  virtual ~TimedInputs() = default;
  /// Whether an input of the network is there at this noise level.
  virtual bool counts(const std::string& input, float sigma) const = 0;
};

}  // namespace distorch::models
