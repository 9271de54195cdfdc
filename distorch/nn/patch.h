#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// A weight with its adapters as one tensor of its shape and dtype; the weight itself where it has
/// none. For small weights (norms, biases, embeddings of positions): layers with large ones work
/// through nn::Chain instead.
at::Tensor patched(const weights::Weight& weight);

/// patched() of a bias that may not exist.
std::optional<at::Tensor> optional_value(const weights::Weight& weight);

}  // namespace distorch::nn
