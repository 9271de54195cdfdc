#include "distorch/quant/int8_activated.h"

#include <ATen/ATen.h>

#include "distorch/device/operators.h"
#include "distorch/quant/int8_product.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using device::Activation;
using Maybe = const std::optional<Tensor>&;

const Levels& levels_of(std::int64_t most) {
  return most == kFourBits.most ? kFourBits : kEightBits;
}

Activation activation_of(bool glu) { return glu ? Activation::SwiGlu : Activation::GeluTanh; }

Tensor one_by_one(Maybe left, const Tensor& x, bool glu, const Tensor& values, const Tensor& scale,
                  Maybe bias, std::int64_t rotated, std::int64_t most) {
  auto activated = device::activated(left.value_or(Tensor()), x, activation_of(glu));
  return int8_linear(activated,
                     {.values = values,
                      .scale = scale,
                      .rotated = static_cast<int>(rotated),
                      .levels = levels_of(most)},
                     bias.value_or(Tensor()));
}

Tensor on_cuda(Maybe left, const Tensor& x, bool glu, const Tensor& values, const Tensor& scale,
               Maybe bias, std::int64_t rotated, std::int64_t most) {
  auto [whole, rows] = cuda::int8_rows_activated(left.value_or(Tensor()), x, activation_of(glu),
                                                 static_cast<int>(rotated), levels_of(most));
  if (whole.defined()) {
    auto by = scale.to(at::kFloat).reshape({-1}).contiguous();
    auto y = cuda::multiplied({whole, values, rows, by, bias.value_or(Tensor())}, x.scalar_type());
    if (y.defined()) return y.view({x.size(0), x.size(1), -1});
  }
  return one_by_one(left, x, glu, values, scale, bias, rotated, most);
}

Tensor shape_only(Maybe, const Tensor& x, bool, const Tensor& values, const Tensor&, Maybe,
                  std::int64_t, std::int64_t) {
  return at::empty({x.size(0), x.size(1), values.size(0)}, x.options());
}

KernelWork cost(c10::ArrayRef<c10::IValue> arguments) {
  const auto &x = arguments[1].toTensor(), &values = arguments[3].toTensor();
  const auto rows = static_cast<double>(x.size(0) * x.size(1));
  const auto in = static_cast<double>(values.size(1)), out = static_cast<double>(values.size(0));
  // The whole numbers and the sums are written and read once.
  return {.kind = KernelKind::Matmul,
          .bytes = 2 * rows * in + 2 * 4 * rows * out,
          .flops = 2 * rows * in * out,
          .depth = in};
}

/// The whole numbers, and a scale a row.
std::int64_t scratch(c10::ArrayRef<c10::IValue> arguments) {
  const auto &x = arguments[1].toTensor(), &values = arguments[3].toTensor();
  return x.size(0) * x.size(1) * (values.size(1) + 4);
}

const auto& activated_operator() {
  static const auto op =
      device::define({.schema = "int8_linear_activated(Tensor? left, Tensor x, bool glu, "
                                "Tensor values, Tensor scale, Tensor? bias, int rotated, int most) "
                                "-> Tensor",
                      .cpu = torch::CppFunction(&one_by_one),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only),
                      .cost = cost,
                      .scratch = scratch})
          .typed<Tensor(Maybe, const Tensor&, bool, const Tensor&, const Tensor&, Maybe,
                        std::int64_t, std::int64_t)>();
  return op;
}

}  // namespace

Tensor int8_linear_activated(const Tensor& left, const Tensor& x, Activation activation,
                             const WholeNumbers& weight, const Tensor& bias) {
  std::optional<Tensor> before, added;
  if (left.defined()) before = left;
  if (bias.defined()) added = bias;
  return activated_operator().call(before, x, activation == Activation::SwiGlu, weight.values,
                                   weight.scale, added, weight.rotated, weight.levels.most);
}

}  // namespace distorch::quant
