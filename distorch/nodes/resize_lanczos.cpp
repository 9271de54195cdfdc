// Pillow's 8-bit resampling: a separable filter in 22-bit fixed point, first along rows, then along
// columns, each result rounded to 8 bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "distorch/nodes/resize.h"
#include "distorch/nodes/resize_bytes.h"

namespace distorch::nodes {

using at::Tensor;

namespace {

constexpr int precision_bits = 32 - 8 - 2;
constexpr double lobes = 3.0;

/// A filter: what it weighs a pixel at that distance with, and how far it reaches.
struct Filter {
  double (*weight)(double);
  double reach;
};

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos_weight(double x) {
  return x >= -lobes && x < lobes ? sinc(x) * sinc(x / lobes) : 0.0;
}

/// Keys' cubic filter with a = -1/2.
double cubic_weight(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

/// Where one output pixel takes its sum from, and with which weights.
struct Tap {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Tap> taps(std::int64_t from, std::int64_t to, const Filter& filter) {
  double scale = static_cast<double>(from) / static_cast<double>(to);
  double spread = std::max(scale, 1.0);
  double support = filter.reach * spread;
  std::vector<Tap> result(static_cast<std::size_t>(to));
  for (std::int64_t i = 0; i < to; ++i) {
    auto& tap = result[static_cast<std::size_t>(i)];
    double center = (static_cast<double>(i) + 0.5) * scale;
    tap.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
    auto end = std::min(from, static_cast<std::int64_t>(center + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (auto x = tap.first; x < end; ++x) {
      weights.push_back(filter.weight((static_cast<double>(x) - center + 0.5) * (1.0 / spread)));
      sum += weights.back();
    }
    for (double w : weights) {
      double fixed = (sum != 0.0 ? w / sum : w) * (1 << precision_bits);
      tap.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return result;
}

/// x [A, N, C] uint8 -> [A, to, C]: filters the middle dimension.
Tensor filter_middle(const Tensor& x, std::int64_t to, const Filter& kind) {
  if (x.size(1) == to) return x;
  auto channels = x.size(2), length = x.size(1);
  auto result = at::empty({x.size(0), to, channels}, x.options());
  auto filter = taps(length, to, kind);
  const auto* in = x.const_data_ptr<std::uint8_t>();
  auto* out = result.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t line = 0; line < x.size(0); ++line, in += length * channels)
    for (const auto& tap : filter)
      for (std::int64_t c = 0; c < channels; ++c) {
        std::int32_t sum = 1 << (precision_bits - 1);
        const auto* from = in + tap.first * channels + c;
        for (auto weight : tap.weights) {
          sum += weight * *from;
          from += channels;
        }
        *out++ = static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
      }
  return result;
}

/// bytes [H, W, C] uint8 -> [height, width, C].
Tensor filtered(const Tensor& bytes, std::int64_t width, std::int64_t height, const Filter& kind) {
  auto wide = filter_middle(bytes.contiguous(), width, kind);
  auto turned = filter_middle(wide.transpose(0, 1).contiguous(), height, kind);
  return turned.transpose(0, 1).contiguous();
}

}  // namespace

Tensor resize_lanczos(const Tensor& image, std::int64_t width, std::int64_t height) {
  auto bytes = (image.to(at::kCPU, at::kFloat) * 255.0).clamp(0, 255).to(at::kByte);
  return filtered(bytes, width, height, {lanczos_weight, lobes}).to(at::kFloat) / 255.0;
}

Tensor resize_bicubic_bytes(const Tensor& bytes, std::int64_t width, std::int64_t height) {
  return filtered(bytes, width, height, {cubic_weight, 2.0});
}

}  // namespace distorch::nodes
