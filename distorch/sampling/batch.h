#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "distorch/sampling/guidance.h"

namespace distorch::sampling {

/// Repeats a tensor along `dim` until it has `count` entries there, or cuts it to that.
at::Tensor repeat_to(const at::Tensor& tensor, std::int64_t count, std::int64_t dim = 0);

/// Whether conditionings with these inputs may share a call. Both are of the same batch.
bool fit_together(const ModelInputs& a, const ModelInputs& b);

}  // namespace distorch::sampling
