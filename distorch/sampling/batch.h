#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace distorch::sampling {

/// Repeats a tensor along `dim` until it has `count` entries there, or cuts it to that.
at::Tensor repeat_to(const at::Tensor& tensor, std::int64_t count, std::int64_t dim = 0);

}  // namespace distorch::sampling
