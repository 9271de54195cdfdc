#include "distorch/quant/rounding.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

namespace distorch::quant {

using at::Tensor;

namespace {

/// How many numbers take their chances together, which decides which number gets which.
constexpr double kSlice = 4096.0 * 4096.0;

/// An 8-bit type: value = 2^(exponent - bias) · (1 + mantissa / 2^mantissa_bits).
struct Layout {
  explicit Layout(at::ScalarType dtype) {
    bool wide = dtype == at::kFloat8_e5m2;
    exponent_bits = wide ? 5 : 4;
    mantissa_bits = wide ? 2 : 3;
    bias = wide ? 15 : 7;
    largest = wide ? 57344.0 : 448.0;
  }
  int exponent_bits, mantissa_bits, bias;
  double largest;
};

Tensor power_of_two(const Tensor& exponent) { return at::pow(2.0, exponent); }

/// Half-precision numbers that `layout` has, from any.
Tensor rounded(const Tensor& value, const Layout& layout, at::Generator generator) {
  // First of all, as the powers of two around 65504 are no numbers of half precision.
  auto x = value.clamp(-layout.largest, layout.largest).to(at::kHalf);
  auto size = x.abs();
  auto sign = at::sign(x);
  const auto steps = std::exp2(layout.mantissa_bits);
  auto exponent =
      (at::floor(at::log2(size)) + layout.bias).clamp(0, std::exp2(layout.exponent_bits) - 1);
  auto is_normal = exponent != 0;
  auto mantissa = at::where(is_normal, (size / power_of_two(exponent - layout.bias) - 1.0) * steps,
                            size / std::exp2(-layout.bias + 1 - layout.mantissa_bits));
  mantissa = mantissa + at::rand(mantissa.sizes(), std::move(generator), mantissa.options());
  mantissa = mantissa.floor() / steps;
  auto result = sign * at::where(is_normal, power_of_two(exponent - layout.bias) * (mantissa + 1.0),
                                 mantissa * std::exp2(-layout.bias + 1));
  return result.clamp(-layout.largest, layout.largest);
}

}  // namespace

Tensor round_by_chance(const Tensor& value, at::ScalarType dtype, std::uint64_t seed) {
  auto result = at::empty(value.sizes(), value.options().dtype(dtype));
  if (value.numel() == 0) return result;
  const Layout layout(dtype);
  auto generator = at::detail::createCPUGenerator(seed);
  auto flat = value.dim() == 0 ? value.view({1}) : value;
  auto target = value.dim() == 0 ? result.view({1}) : result;
  auto slices = std::max(1.0, static_cast<double>(value.numel()) / kSlice);
  auto rows = std::max<std::int64_t>(1, std::llrint(static_cast<double>(flat.size(0)) / slices));
  for (std::int64_t first = 0; first < flat.size(0); first += rows) {
    auto count = std::min(rows, flat.size(0) - first);
    target.narrow(0, first, count).copy_(rounded(flat.narrow(0, first, count), layout, generator));
  }
  return result;
}

std::uint32_t crc32_of(const std::string& text) {
  std::uint32_t crc = ~0u;
  for (unsigned char byte : text) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

}  // namespace distorch::quant
