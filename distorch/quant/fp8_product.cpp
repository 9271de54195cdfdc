#include <ATen/ATen.h>

#include <map>
#include <mutex>
#include <utility>

#include "distorch/device/operators.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/fp8_operators.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using Maybe = const std::optional<Tensor>&;

/// What the product can read, beside the device.
bool is_fit(const Tensor& x, const Packed& weight) {
  constexpr std::int64_t multiple = 16;
  const auto dtype = x.scalar_type();
  const auto& w = weight.values;
  return (dtype == at::kHalf || dtype == at::kBFloat16) && weight.encoding == &float8_e4m3fn() &&
         w.scalar_type() == at::kFloat8_e4m3fn && w.dim() == 2 && w.size(0) % multiple == 0 &&
         w.size(1) % multiple == 0 && w.numel() > 0 && x.numel() > 0;
}

/// The part of a weight that may not be there.
std::optional<Tensor> part_of(const Packed& weight, std::size_t index) {
  if (index >= weight.parts.size() || !weight.parts[index].defined()) return {};
  return weight.parts[index];
}

Tensor on_cuda(const Tensor& x, const Tensor& values, Maybe scale, Maybe input_scale, Maybe bias) {
  const auto [rows, used] = to_float8(x, input_scale.value_or(Tensor()));
  auto own = scale ? scale->to(at::kFloat).reshape({1}) : input_scale ? at::ones_like(used) : used;
  return at::_scaled_mm(rows, values.t(), used, own, bias, {}, x.scalar_type());
}

/// The same in float32: for those who compare, no device computes so by itself.
Tensor on_cpu(const Tensor& x, const Tensor& values, Maybe scale, Maybe input_scale, Maybe bias) {
  const auto [rows, used] = to_float8(x, input_scale.value_or(Tensor()));
  auto y = rows.to(at::kFloat).mm(values.to(at::kFloat).t()).mul_(used);
  if (scale) y.mul_(scale->to(at::kFloat).reshape({1}));
  if (bias) y.add_(bias->to(at::kFloat));
  return y.to(x.scalar_type());
}

Tensor shape_only(const Tensor& x, const Tensor& values, Maybe, Maybe, Maybe) {
  return at::empty({x.size(0), values.size(0)}, x.options());
}

KernelWork cost(c10::ArrayRef<c10::IValue> arguments) {
  // Of the time of the same product in half types: what such devices state.
  constexpr double of_half = 0.5;
  const auto &x = arguments[0].toTensor(), &values = arguments[1].toTensor();
  const auto rows = static_cast<double>(x.size(0)), in = static_cast<double>(x.size(1));
  const auto out = static_cast<double>(values.size(0));
  // The inputs in 8 bits are written and read once.
  return {.kind = KernelKind::Matmul,
          .bytes = 2 * rows * in,
          .flops = of_half * 2 * rows * in * out,
          .depth = in};
}

/// The inputs in 8 bits.
std::int64_t scratch(c10::ArrayRef<c10::IValue> arguments) {
  return arguments[0].toTensor().numel();
}

/// The device that simulated ones of this thread stand for.
thread_local std::optional<at::Device> stands_for;

}  // namespace

ProductsOf::ProductsOf(at::Device device) : before_(std::exchange(stands_for, device)) {}
ProductsOf::~ProductsOf() { stands_for = before_; }

at::Device stood_for(at::Device device) {
  return device.is_privateuseone() && stands_for ? *stands_for : device;
}

bool has_products(at::Device device) {
  device = stood_for(device);
  if (!device.is_cuda()) return false;
  static std::mutex mutex;
  static std::map<int, bool> known;
  std::lock_guard lock(mutex);
  auto [at, is_new] = known.emplace(device.index(), false);
  if (!is_new) return at->second;
  try {
    auto ones = at::ones({16, 16}, at::TensorOptions().device(device)).to(at::kFloat8_e4m3fn);
    auto scale = at::ones({}, at::TensorOptions().device(device).dtype(at::kFloat));
    at::_scaled_mm(ones, ones.t(), scale, scale, {}, {}, at::kBFloat16);
    at->second = true;
  } catch (const std::exception&) {
    // A card from before such products: weights are decoded.
  }
  return at->second;
}

Tensor float8_linear(const Tensor& x, const Packed& weight, const Tensor& bias) {
  static const auto op =
      device::define({.schema = "float8_linear(Tensor x, Tensor values, Tensor? scale, Tensor? "
                                "input_scale, Tensor? bias) -> Tensor",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only),
                      .cost = cost,
                      .scratch = scratch})
          .typed<Tensor(const Tensor&, const Tensor&, Maybe, Maybe, Maybe)>();
  const auto& values = weight.values;
  std::optional<Tensor> added;
  if (bias.defined()) added = bias.to(x.scalar_type());
  auto y = op.call(x.reshape({-1, values.size(1)}), values, part_of(weight, 0), part_of(weight, 1),
                   added);
  auto sizes = x.sizes().vec();
  sizes.back() = values.size(0);
  return y.view(sizes);
}

Tensor fast_linear(const Tensor& x, const Packed& weight, const Tensor& bias) {
  const auto scale = part_of(weight, 0);
  if ((scale && scale->numel() != 1) || !is_fit(x, weight) || !has_products(x.device())) return {};
  return float8_linear(x, weight, bias);
}

}  // namespace distorch::quant
