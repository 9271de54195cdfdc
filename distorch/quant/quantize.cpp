#include "distorch/quant/quantize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "distorch/device/parallel.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/rotation.h"
#include "distorch/quant/signed4.h"
#include "distorch/quant/small_float_rounding.h"

namespace distorch::quant {
namespace {

using at::Tensor;

constexpr float kLargestEight = 448, kLargestFour = 6;

/// The numbers as a float32 matrix.
Tensor numbers_of(const Tensor& weight) { return weight.to(at::kFloat).contiguous(); }

/// Calls work(numbers, first, count) for stretches of all numbers, as float32, in all threads.
template <class Work>
void in_floats(const Tensor& given, const Work& work) {
  constexpr std::int64_t stretch = 4096;  // whole blocks
  const bool is_bf16 = given.scalar_type() == at::kBFloat16;
  const auto numbers = (is_bf16 ? given : given.to(at::kFloat)).contiguous();
  const auto all = numbers.numel();
  const void* from = numbers.const_data_ptr();
  device::parallel_for(
      0, (all + stretch - 1) / stretch, 4, [&](std::int64_t begin, std::int64_t end) {
        std::array<float, stretch> room;
        for (auto i = begin; i < end; ++i) {
          const auto first = i * stretch, count = std::min(stretch, all - first);
          const auto* floats = static_cast<const float*>(from) + first;
          if (is_bf16) {
            std::copy_n(static_cast<const at::BFloat16*>(from) + first, count, room.begin());
            floats = room.data();
          }
          work(floats, first, count);
        }
      });
}

}  // namespace

Tensor blocked_scales(const Tensor& scales) {
  const auto rows = scales.size(0), blocks = scales.size(1);
  auto bytes = scales.view(at::kByte).contiguous();
  auto result = at::zeros(blocked_shape(rows, blocks), bytes.options());
  const auto* from = bytes.const_data_ptr<std::uint8_t>();
  auto* to = result.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t b = 0; b < blocks; ++b)
      to[blocked_index(r, b, blocks)] = from[r * blocks + b];
  return result.view(scales.scalar_type());
}

namespace {

/// The largest magnitudes of the blocks of a row: [N, K / block].
Tensor block_magnitudes(const Tensor& numbers, std::int64_t block) {
  return at::amax(numbers.unflatten(1, {-1, block}).abs(), {2});
}

}  // namespace

Packed to_int8(const Tensor& weight, bool by_row, int rotated) {
  auto numbers = numbers_of(weight);
  auto sizes = numbers.sizes().vec();
  if (by_row || rotated > 0) {
    auto [values, scales] = whole_rows(numbers, rotated, kEightBits);
    return {&int8_tensorwise(rotated), values, {scales.unsqueeze(1)}, sizes};
  }
  auto scale = (numbers.abs().max() / kEightBits.most).clamp_min(kEightBits.floor);
  auto values = (numbers / scale).round_().clamp_(kEightBits.least, kEightBits.most);
  return {&int8_tensorwise(), values.to(at::kChar), {scale}, sizes};
}

Packed to_float8(const Tensor& weight, at::ScalarType dtype) {
  const bool wide = dtype == at::kFloat8_e5m2;
  const float largest = wide ? 57344.0f : kLargestEight;
  auto numbers = numbers_of(weight);
  auto scale = numbers.abs().max() / largest;
  if (scale.item<float>() == 0) scale.fill_(1);
  auto values = (numbers * scale.reciprocal()).clamp_(-largest, largest).to(dtype);
  const auto& encoding = wide ? float8_e5m2() : float8_e4m3fn();
  return {&encoding, values, {scale, Tensor()}, numbers.sizes().vec()};
}

float nvfp4_scale(float largest) {
  return largest == 0 ? 1.0f : largest / (kLargestEight * kLargestFour);
}

float largest_magnitude(const Tensor& numbers) {
  if (numbers.numel() == 0) return 0;
  const auto [least, most] = at::aminmax(numbers.reshape({-1}));
  return at::maximum(least.neg(), most).to(at::kFloat).item<float>();
}

Tensor e4m3_of(const Tensor& numbers, float scale) {
  auto bytes = at::empty(numbers.sizes(), numbers.options().dtype(at::kByte));
  auto* to = bytes.mutable_data_ptr<std::uint8_t>();
  in_floats(numbers, [&](const float* from, std::int64_t first, std::int64_t count) {
    kernels::to_e4m3(from, to + first, count, scale);
  });
  return bytes.view(at::kFloat8_e4m3fn);
}

Nvfp4Rows nvfp4_rows(const Tensor& numbers, float whole) {
  constexpr int block = 16;
  const auto rows = numbers.size(0), width = numbers.size(1);
  const auto bytes = numbers.options().dtype(at::kByte);
  auto values = at::empty({rows, width / 2}, bytes),
       scales = at::empty({rows, width / block}, bytes);
  auto *to = values.mutable_data_ptr<std::uint8_t>(), *by = scales.mutable_data_ptr<std::uint8_t>();
  in_floats(numbers, [&](const float* from, std::int64_t first, std::int64_t count) {
    kernels::to_nvfp4({from, to + first / 2, by + first / block, count, whole});
  });
  return {values, scales.view(at::kFloat8_e4m3fn)};
}

Packed to_nvfp4(const Tensor& weight) {
  auto numbers = numbers_of(weight);
  const auto whole = nvfp4_scale(numbers.abs().max().item<float>());
  auto [values, scales] = nvfp4_rows(numbers, whole);
  return {&nvfp4(),
          values,
          {blocked_scales(scales), at::full({}, whole), Tensor(), Tensor()},
          numbers.sizes().vec()};
}

Packed to_mxfp8(const Tensor& weight) {
  constexpr int block = 32, bias = 127, largest_exponent = 254;
  auto numbers = numbers_of(weight);
  auto magnitudes = block_magnitudes(numbers, block);
  auto needed = (magnitudes / kLargestEight).clamp_min(std::ldexp(1.0, -bias));
  auto exponents = (at::ceil(at::log2(needed)) + bias).clamp_(0, largest_exponent).to(at::kInt);
  auto zero = magnitudes.eq(0);
  exponents.masked_fill_(zero, 0);
  auto factors = exponents.bitwise_left_shift(23).view(at::kFloat).masked_fill(zero, 1);
  auto scaled = numbers.unflatten(1, {-1, block}) / factors.unsqueeze(2);
  auto values = scaled.clamp_(-kLargestEight, kLargestEight).flatten(1).to(at::kFloat8_e4m3fn);
  auto scales = exponents.to(at::kByte).view(at::kFloat8_e8m0fnu);
  return {&mxfp8(), values, {blocked_scales(scales), Tensor()}, numbers.sizes().vec()};
}

Packed to_convrot_w4a4(const Tensor& weight, int rotated) {
  auto numbers = numbers_of(weight);
  auto [values, scales] = whole_rows(numbers, rotated, kFourBits);
  auto halves = values.view(at::kByte).unflatten(1, {-1, 2}).bitwise_and(15);
  auto packed = halves.select(2, 0).bitwise_or(halves.select(2, 1).bitwise_left_shift(4));
  return {
      &convrot_w4a4(rotated), packed.contiguous().view(at::kChar), {scales}, numbers.sizes().vec()};
}

}  // namespace distorch::quant
