#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"

namespace distorch::models {

/// What a picture encoder saw as tokens of a video transformer: norm, two layers with GELU between
/// them, norm. Declares `0`, `1`, `3` and `4` below its scope. Source: ComfyUI
/// comfy/ldm/wan/model.py, MLPProj.
class VisionTokens {
 public:
  /// `in`: width of the encoder's states; `out`: of the tokens.
  VisionTokens(const weights::Scope& scope, std::int64_t in, std::int64_t out);
  /// states [B, L, in] -> [B, L, out].
  at::Tensor operator()(const at::Tensor& states) const;
  at::ScalarType dtype() const { return first_.dtype(); }

 private:
  nn::LayerNorm norm_in_;
  nn::Linear first_, second_;
  nn::LayerNorm norm_out_;
};

}  // namespace distorch::models
