#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// The products that a layer consists of, so that an adapter is written once for linear layers and
/// for convolutions. x is an input of the layer, y something of its output's form; channels are
/// the dimension that the weight's dimensions 1 (input) and 0 (output) belong to.
class Products {
 public:
  virtual ~Products() = default;
  /// The layer's own product with a stored weight.
  virtual at::Tensor with(const at::Tensor& x, const weights::Weight& weight,
                          const std::optional<at::Tensor>& bias) const = 0;
  /// The layer's own product with a kernel [o, i, the layer's kernel], dimensions from the second on
  /// also taken together.
  virtual at::Tensor whole(const at::Tensor& x, const at::Tensor& kernel) const = 0;
  /// Mixes channels by a matrix [o, i].
  virtual at::Tensor mix_in(const at::Tensor& x, const at::Tensor& matrix) const = 0;
  virtual at::Tensor mix_out(const at::Tensor& y, const at::Tensor& matrix) const = 0;
  /// Multiplies channel i by factors[i].
  virtual at::Tensor scale_in(const at::Tensor& x, const at::Tensor& factors) const = 0;
  virtual at::Tensor scale_out(const at::Tensor& y, const at::Tensor& factors) const = 0;
  /// The input channels as `groups` equal parts, each an input of its own for the other products.
  virtual at::Tensor split_in(const at::Tensor& x, std::int64_t groups) const = 0;
  /// Puts outputs of split inputs together: channel (a, c) is Σ_g matrix[a, g] · channel c of group
  /// g.
  virtual at::Tensor join_out(const at::Tensor& y, const at::Tensor& matrix) const = 0;
  /// Which dimension of y the channels are.
  virtual std::int64_t channels() const = 0;
};

/// y = x · Wᵀ on the last dimension. `kernel`: elements of a convolution's kernel, whose weight is
/// multiplied as the matrix [out, in · kernel].
class LinearProducts final : public Products {
 public:
  explicit LinearProducts(std::int64_t kernel = 1) : kernel_(kernel) {}
  at::Tensor with(const at::Tensor& x, const weights::Weight& weight,
                  const std::optional<at::Tensor>& bias) const override;
  at::Tensor whole(const at::Tensor& x, const at::Tensor& kernel) const override;
  at::Tensor mix_in(const at::Tensor& x, const at::Tensor& matrix) const override;
  at::Tensor mix_out(const at::Tensor& y, const at::Tensor& matrix) const override;
  at::Tensor scale_in(const at::Tensor& x, const at::Tensor& factors) const override;
  at::Tensor scale_out(const at::Tensor& y, const at::Tensor& factors) const override;
  at::Tensor split_in(const at::Tensor& x, std::int64_t groups) const override;
  at::Tensor join_out(const at::Tensor& y, const at::Tensor& matrix) const override;
  std::int64_t channels() const override { return -1; }

 private:
  std::int64_t kernel_;
};

}  // namespace distorch::nn
