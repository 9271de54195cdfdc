#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/models/text_encoder.h"
#include "distorch/nn/embedding.h"
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// The first block of a language model: a row of a table for each token, and vectors that stand in
/// place of some.
class TokenTable {
 public:
  TokenTable(const weights::Scope& scope, std::int64_t count, std::int64_t width);
  /// ids [B, L] int64 on the device -> [B, L, width] float32. Error(Shape) for a vector of another
  /// width.
  at::Tensor rows(const at::Tensor& ids, const std::vector<Replacement>& replacements) const;

 private:
  weights::Block block_;
  nn::Embedding table_;
  std::int64_t width_;
};

}  // namespace distorch::models
