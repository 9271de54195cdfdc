#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// The number that an adapter's change is multiplied with: strength · alpha / rank.
double scale_of(const weights::Adapter& adapter);

/// A part of an adapter in `dtype`.
at::Tensor part_of(const weights::Adapter& adapter, weights::Part part, at::ScalarType dtype);

/// W with its adapters as one tensor of W's shape and dtype; W itself where it has none. For small
/// weights (norms, biases, embeddings): large layers add the low-rank product to their output
/// instead.
at::Tensor patched(const weights::Weight& weight);

/// patched() of a bias that may not exist.
std::optional<at::Tensor> optional_value(const weights::Weight& weight);

}  // namespace distorch::nn
