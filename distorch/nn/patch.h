#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// W + Σ scale · (up · mid · down | delta) as one tensor of W's shape and dtype; W itself where it
/// has no patches. For small weights (norms, biases, embeddings): large layers add the low-rank
/// product to their output instead.
at::Tensor patched(const weights::Weight& weight);

/// patched() of a bias that may not exist.
std::optional<at::Tensor> optional_value(const weights::Weight& weight);

}  // namespace distorch::nn
