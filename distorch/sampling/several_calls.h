#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "distorch/sampling/guidance.h"

namespace distorch::sampling {

/// What X0Model::apply() is called with.
struct NetworkCall {
  at::Tensor x, sigma;
  BatchedInputs inputs;
  CallFacts facts;
};

/// What an X0Model is beside that where it makes several calls at the same time, as one that
/// computes on several devices does. Conditionings are then shared out over so many calls, where
/// they would else go into few.
class SeveralCalls {
 public:
  virtual ~SeveralCalls() = default;
  /// The most calls that run at the same time.
  virtual std::size_t at_once() const = 0;
  /// X0Model::apply() of each call; results in the order of the calls, on the model's device. Where
  /// one of them throws the others end first.
  virtual std::vector<at::Tensor> apply_all(const std::vector<NetworkCall>& calls) = 0;
};

}  // namespace distorch::sampling
