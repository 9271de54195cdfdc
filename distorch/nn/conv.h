#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

struct ConvOptions {
  std::int64_t kernel = 3;  // pixels, both ways
  std::int64_t stride = 1;
  std::int64_t padding = 1;  // zeros on every side
  bool bias = true;
};

/// 2-D convolution: x [B, in, H, W] -> [B, out, (H + 2·padding - kernel) / stride + 1, ...], memory
/// format kept. Declares `weight` [out, in, kernel, kernel] and, with bias, `bias` [out]. A 1x1 convolution of
/// a channels-last input runs as a matrix product without a copy. Adapters are applied
/// while it runs (adapters/chain.h).
class Conv2d {
 public:
  Conv2d(const weights::Scope& scope, std::int64_t in, std::int64_t out, ConvOptions options = {});
  at::Tensor operator()(const at::Tensor& x) const;
  /// With `added` [B, out] at every position: on an accelerator in one pass with the bias.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& added) const;
  /// The type that this layer computes in, known while its block runs.
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  at::Tensor product(const at::Tensor& x, const std::optional<at::Tensor>& bias) const;

  ConvOptions options_;
  weights::Weight weight_, bias_;
};

inline constexpr ConvOptions pointwise{.kernel = 1, .stride = 1, .padding = 0};

/// [B, C, H, W] -> [B, H·W, C] and back; views where x is channels-last.
at::Tensor to_tokens(const at::Tensor& image);
at::Tensor to_image(const at::Tensor& tokens, std::int64_t height, std::int64_t width);

/// A model's input or a block's: in `dtype` and channels-last.
at::Tensor to_layout(const at::Tensor& image, at::ScalarType dtype);

/// Nearest-neighbour resize to height x width; dtype and memory format kept.
at::Tensor upsample_nearest(const at::Tensor& x, std::int64_t height, std::int64_t width);

}  // namespace distorch::nn
