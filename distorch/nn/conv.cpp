#include "distorch/nn/conv.h"

#include "distorch/device/device.h"
#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/patch.h"

namespace distorch::nn {
namespace {

at::Tensor conv(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias, const ConvOptions& o) {
  if (device::computes_as_cpu(x.device()))
    return at::conv2d(x, weight, bias, {o.stride, o.stride}, {o.padding, o.padding});
  // On accelerators always channels-last, whatever comes: where a weight rests must not choose the
  // kernel. Resident ones are laid out like this once for all (streaming/residence.cpp).
  constexpr auto layout = at::MemoryFormat::ChannelsLast;
  return at::conv2d(x.contiguous(layout), weight.contiguous(layout), bias, {o.stride, o.stride},
                    {o.padding, o.padding});
}

/// An image's channels are dimension 1.
class ConvProducts final : public Products {
 public:
  explicit ConvProducts(ConvOptions options) : options_(options) {}

  at::Tensor with(const at::Tensor& x, const weights::Weight& weight,
                  const std::optional<at::Tensor>& bias) const override {
    // Converted weights are laid out for the input in the same pass.
    return conv(x, weight.dense(x.suggest_memory_format()), bias, options_);
  }
  at::Tensor whole(const at::Tensor& x, const at::Tensor& kernel) const override {
    auto own = options_.kernel;
    return conv(x, kernel.reshape({kernel.size(0), -1, own, own}), std::nullopt, options_);
  }
  at::Tensor mix_in(const at::Tensor& x, const at::Tensor& matrix) const override {
    return conv(x, matrix.reshape({matrix.size(0), -1, 1, 1}), std::nullopt, pointwise);
  }
  at::Tensor mix_out(const at::Tensor& y, const at::Tensor& matrix) const override {
    return mix_in(y, matrix);
  }
  at::Tensor scale_in(const at::Tensor& x, const at::Tensor& factors) const override {
    return x * factors.view({-1, 1, 1});
  }
  at::Tensor scale_out(const at::Tensor& y, const at::Tensor& factors) const override {
    return scale_in(y, factors);
  }
  at::Tensor split_in(const at::Tensor& x, std::int64_t groups) const override {
    return x.reshape({x.size(0) * groups, x.size(1) / groups, x.size(2), x.size(3)});
  }
  at::Tensor join_out(const at::Tensor& y, const at::Tensor& matrix) const override {
    auto groups = matrix.size(1), images = y.size(0) / groups;
    auto flat = y.contiguous().view({images, groups, y.size(1) * y.size(2) * y.size(3)});
    return at::matmul(matrix, flat).view({images, -1, y.size(2), y.size(3)});
  }
  std::int64_t channels() const override { return 1; }

 private:
  ConvOptions options_;
};

}  // namespace

Conv2d::Conv2d(const weights::Scope& scope, std::int64_t in, std::int64_t out, ConvOptions options)
    : options_(options),
      weight_(scope.weight("weight", {out, in, options.kernel, options.kernel})) {
  if (options.bias) bias_ = scope.weight("bias", {out});
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  bool is_pointwise = options_.kernel == 1 && options_.stride == 1 && options_.padding == 0;
  if (is_pointwise && x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return to_image(linear(to_tokens(x), weight_, bias_), x.size(2), x.size(3));
  return product(x, optional_value(bias_));
}

at::Tensor Conv2d::product(const at::Tensor& x, const std::optional<at::Tensor>& bias) const {
  ConvProducts products(options_);
  if (weight_.adapters().empty()) return products.with(x, weight_, bias);
  return Chain(weight_).product(x, products, bias);
}

// Torch adds a bias to what a GPU has convolved in a pass of its own.
at::Tensor Conv2d::operator()(const at::Tensor& x, const at::Tensor& added) const {
  const auto bias = optional_value(bias_);
  const auto everywhere = [](const at::Tensor& row) { return row.unsqueeze(-1).unsqueeze(-1); };
  if (!bias || device::computes_as_cpu(x.device())) return (*this)(x).add_(everywhere(added));
  return product(x, std::nullopt).add_(everywhere(added + *bias));
}

at::Tensor to_tokens(const at::Tensor& image) {
  return image.permute({0, 2, 3, 1})
      .reshape({image.size(0), image.size(2) * image.size(3), image.size(1)});
}

at::Tensor to_image(const at::Tensor& tokens, std::int64_t height, std::int64_t width) {
  return tokens.reshape({tokens.size(0), height, width, tokens.size(2)}).permute({0, 3, 1, 2});
}

at::Tensor to_layout(const at::Tensor& image, at::ScalarType dtype) {
  return image.to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor upsample_nearest(const at::Tensor& x, std::int64_t height, std::int64_t width) {
  return at::upsample_nearest2d(x, {height, width});
}

}  // namespace distorch::nn
