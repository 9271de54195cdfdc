#pragma once
#include <functional>

#include <ATen/core/Tensor.h>

#include "tools/make_random_model/write.h"

namespace distorch::random_model {

/// The numbers of one tensor, float32.
using Values = std::function<at::Tensor(const Shape&)>;

/// Writes a .gguf file: matrices in blocks of `options.dtype` (Q8_0, Q4_0, Q4_K; by default Q8_0) or
/// F16 where they are no whole blocks, all else in F32, under the names that such files have.
/// Error(Usage) for another type.
void write_gguf_model(const std::filesystem::path& path, const Kind& kind,
                      const WriteOptions& options, const Values& values);

}  // namespace distorch::random_model
