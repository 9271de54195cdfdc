#include "distorch/nn/conv.h"

#include "distorch/device/device.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/patch.h"

namespace distorch::nn {
namespace {

at::Tensor conv(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias, const ConvOptions& o) {
  if (device::computes_as_cpu(x.device()))
    return at::conv2d(x, weight, bias, {o.stride, o.stride}, {o.padding, o.padding});
  // On accelerators always channels-last, whatever comes: where a weight rests must not choose the
  // kernel. Resident ones are laid out like this once for all (streaming/streamed_loading.cpp).
  constexpr auto layout = at::MemoryFormat::ChannelsLast;
  return at::conv2d(x.contiguous(layout), weight.contiguous(layout), bias, {o.stride, o.stride},
                    {o.padding, o.padding});
}

// The factors of a 1x1 convolution may be stored as matrices.
at::Tensor kernel_of(const at::Tensor& factor) {
  return factor.dim() == 2 ? factor.unsqueeze(-1).unsqueeze(-1) : factor;
}

}  // namespace

Conv2d::Conv2d(const weights::Scope& scope, std::int64_t in, std::int64_t out, ConvOptions options)
    : options_(options),
      weight_(scope.weight("weight", {out, in, options.kernel, options.kernel})),
      bias_(scope.weight("bias", {out})) {}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  bool is_pointwise = options_.kernel == 1 && options_.stride == 1 && options_.padding == 0;
  if (is_pointwise && x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return to_image(linear(to_tokens(x), weight_, bias_), x.size(2), x.size(3));
  // Converted weights are laid out for the input in the same pass.
  auto y = conv(x, weight_.dense(x.suggest_memory_format()), optional_value(bias_), options_);
  for (const auto& adapter : weight_.adapters()) y.add_(change(x, adapter), scale_of(adapter));
  return y;
}

at::Tensor Conv2d::change(const at::Tensor& x, const weights::Adapter& adapter) const {
  auto part = [&](weights::Part which) { return part_of(adapter, which, x.scalar_type()); };
  if (auto value = part(weights::Part::Value); value.defined())
    return conv(x, value.view(weight_.shape()), std::nullopt, options_);
  auto down = kernel_of(part(weights::Part::Down)), up = kernel_of(part(weights::Part::Up));
  auto mid = part(weights::Part::Mid);
  if (!mid.defined())
    return conv(conv(x, down, std::nullopt, options_), up, std::nullopt, pointwise);
  // The three-factor form keeps the kernel in the middle, between two 1x1 convolutions.
  auto inner = conv(conv(x, down, std::nullopt, pointwise), mid, std::nullopt, options_);
  return conv(inner, up, std::nullopt, pointwise);
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
