#include "distorch/quant/scaled_inputs.h"

#include <ATen/ATen.h>

#include <map>
#include <mutex>

#include "distorch/base/align.h"
#include "distorch/device/operators.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/quantize.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using Maybe = const std::optional<Tensor>&;
using Pair = std::tuple<Tensor, Tensor>;

constexpr std::int64_t kRows = 32;               // cuBLAS's inputs: multiples of that
constexpr double kLargestProduct = 448.0 * 6.0;  // of a scale and a number of nvfp4

Tensor filled_up(const Tensor& x) {
  return at::constant_pad_nd(x, {0, 0, 0, align_up(x.size(0), kRows) - x.size(0)});
}

Pair on_cpu(const Tensor& x, Maybe whole) {
  const auto numbers = filled_up(x.to(at::kFloat)).contiguous();
  if (!whole) {
    auto packed = to_mxfp8(numbers);
    return {packed.values, packed.parts[0]};
  }
  auto [values, scales] = nvfp4_rows(numbers, whole->item<float>());
  return {values, blocked_scales(scales)};
}

Pair on_cuda(const Tensor& x, Maybe whole) {
  auto made = cuda::scaled_inputs(x, whole.value_or(Tensor()));
  if (made.values.defined()) return {made.values, made.scales};
  std::optional<Tensor> all;
  if (whole) all = whole->cpu();
  auto [values, scales] = on_cpu(x.cpu(), all);
  return {values.to(x.device()), scales.to(x.device())};
}

Pair shape_only(const Tensor& x, Maybe whole) {
  const auto rows = align_up(x.size(0), kRows), width = x.size(1);
  const auto options = x.options();
  auto scales = blocked_shape(rows, width / (whole ? 16 : 32));
  return {at::empty({rows, whole ? width / 2 : width},
                    options.dtype(whole ? at::kByte : at::kFloat8_e4m3fn)),
          at::empty(scales, options.dtype(whole ? at::kFloat8_e4m3fn : at::kFloat8_e8m0fnu))};
}

/// The scale of all inputs: the file's, or by the largest of them, in their type as ComfyUI does.
Tensor whole_of(const Tensor& x, const Packed& weight) {
  const auto& own = weight.parts[3];
  if (own.defined()) return own.to(at::kFloat).reshape({1});
  const auto largest =
      at::linalg_vector_norm(x, std::numeric_limits<double>::infinity(), at::OptionalIntArrayRef());
  return largest.div(kLargestProduct).to(at::kFloat).reshape({1});
}

/// x [M, K] · Wᵀ + bias where the device has such a product.
Tensor product(Tensor x, const Packed& weight, const std::optional<Tensor>& bias) {
  const auto dtype = x.scalar_type();
  const bool four = weight.encoding == &nvfp4();
  const auto rows = x.size(0);
  const auto own = weight.parts[0].view(four ? at::kFloat8_e4m3fn : at::kFloat8_e8m0fnu).flatten();
  if (!four) {
    const auto inputs = scaled_inputs(x, {});
    return at::_scaled_mm(inputs.values, weight.values.t(), inputs.scales.flatten(), own, bias, {},
                          dtype)
        .narrow(0, 0, rows);
  }
  if (weight.parts[2].defined()) x = x * weight.parts[2].to(dtype);
  const auto whole = whole_of(x, weight);
  const auto inputs = scaled_inputs(x, whole);
  const auto codes = [](const Tensor& t) { return t.view(at::kFloat4_e2m1fn_x2); };
  constexpr std::int64_t by_blocks_of_16 = 2, by_tensor = 0;  // at::blas::ScalingType
  constexpr std::int64_t in_tiles = 1, plain = 0;             // at::blas::SwizzleType
  const std::vector<Tensor> scales{inputs.scales.flatten(), whole};
  const std::vector<Tensor> own_scales{own, weight.parts[1].to(at::kFloat).reshape({1})};
  return at::_scaled_mm_v2(codes(inputs.values), codes(weight.values).t(), scales,
                           {by_blocks_of_16, by_tensor}, {in_tiles, plain}, own_scales,
                           {by_blocks_of_16, by_tensor}, {in_tiles, plain}, bias, dtype)
      .narrow(0, 0, rows);
}

/// What the product can read, beside the device.
bool is_fit(const Tensor& x, const Packed& weight) {
  constexpr std::int64_t multiple = 32;
  const bool four = weight.encoding == &nvfp4();
  const auto dtype = x.scalar_type();
  return (four || weight.encoding == &mxfp8()) && (dtype == at::kHalf || dtype == at::kBFloat16) &&
         x.numel() > 0 && weight.values.size(0) == weight.shape[0] &&
         weight.values.size(1) * (four ? 2 : 1) == weight.shape[1] &&
         weight.shape[0] % multiple == 0 && weight.shape[1] % multiple == 0;
}

/// Whether a small product is what its rounded factors give.
bool is_right(at::Device device, bool four) {
  constexpr std::int64_t rows = 40, in = 256, out = 160;
  constexpr double tolerance = 1e-2;
  auto waves = [](std::int64_t n, std::int64_t k, double step) {
    return at::sin(at::arange(n * k, at::kFloat) * step).view({n, k});
  };
  const auto w = waves(out, in, 1.7);
  const auto weight = (four ? to_nvfp4(w) : to_mxfp8(w)).to(device);
  const auto x = waves(rows, in, 0.37).to(device, at::kBFloat16);
  const auto whole = four ? whole_of(x, weight) : Tensor();
  const auto inputs = scaled_inputs(x, whole);
  const Packed taken{weight.encoding,
                     inputs.values,
                     {inputs.scales, whole, Tensor(), Tensor()},
                     {inputs.values.size(0), in}};
  const auto wanted =
      decode(taken, at::kFloat).narrow(0, 0, rows).mm(decode(weight, at::kFloat).t());
  const auto got = product(x, weight, {}).to(at::kFloat);
  return ((got - wanted).norm() / wanted.norm()).item<double>() < tolerance;
}

}  // namespace

ScaledInputs scaled_inputs(const Tensor& x, const Tensor& whole) {
  static const auto op =
      device::define({.schema = "scaled_inputs(Tensor x, Tensor? whole) -> (Tensor, Tensor)",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only)})
          .typed<Pair(const Tensor&, Maybe)>();
  std::optional<Tensor> all;
  if (whole.defined()) all = whole;
  auto [values, scales] = op.call(x, all);
  return {values, scales};
}

bool has_block_products(at::Device device, bool four) {
  device = stood_for(device);
  if (!device.is_cuda()) return false;
  static std::mutex mutex;
  static std::map<std::pair<int, bool>, bool> known;
  std::lock_guard lock(mutex);
  auto [at, is_new] = known.emplace(std::pair(static_cast<int>(device.index()), four), false);
  if (!is_new) return at->second;
  try {
    at->second = is_right(device, four);
  } catch (const std::exception&) {
    // A card from before such products: weights are decoded.
  }
  return at->second;
}

Tensor block_linear(const Tensor& x, const Packed& weight, const Tensor& bias) {
  // A dry run counts the decoded weight instead.
  if (x.device().is_privateuseone() || !is_fit(x, weight) ||
      !has_block_products(x.device(), weight.encoding == &nvfp4()))
    return {};
  std::optional<Tensor> added;
  if (bias.defined()) added = bias.to(x.scalar_type());
  auto sizes = x.sizes().vec();
  sizes.back() = weight.shape[0];
  return product(x.reshape({-1, weight.shape[1]}), weight, added).reshape(sizes);
}

}  // namespace distorch::quant
