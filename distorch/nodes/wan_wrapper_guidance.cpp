#include "distorch/nodes/wan_wrapper_guidance.h"

#include <cmath>

namespace distorch::nodes::wan_wrapper {

using at::Tensor;

namespace {

constexpr double kTiny = 1e-8;

/// By how much the negative is to be scaled to come closest to the positive.
double best_scale(const Tensor& positive, const Tensor& negative) {
  return ((positive * negative).sum() / (negative.square().sum() + kTiny)).item<double>();
}

/// A scale that gives way where both passes differ much. Source: RAAG (arXiv:2508.03442).
double ratio_aware(const Tensor& positive, const Tensor& negative, double cfg, double strength) {
  auto size = [](const Tensor& x) { return x.select(0, 0).flatten(1).norm(2, 1); };
  const auto ratio = size(positive - negative) / (size(negative) + kTiny);
  return 1 + (cfg - 1) * std::exp(-strength * ratio.mean().item<double>());
}

/// Python's [middle - cutoff : middle + cutoff] of so many, as first and count.
std::pair<std::int64_t, std::int64_t> around_middle(std::int64_t size, std::int64_t cutoff) {
  auto first = size / 2 - cutoff;
  // What is before the start counts from the end.
  if (first < 0) first = std::max<std::int64_t>(0, first + size);
  const auto end = std::min(size, size / 2 + cutoff);
  return {first, std::max<std::int64_t>(0, end - first)};
}

}  // namespace

Tensor filtered(const Tensor& x, const Experimental& how) {
  auto waves = at::fft_fftshift(at::fft_fft2(x), at::IntArrayRef{-2, -1});
  auto scales = at::full({x.size(-2), x.size(-1)}, how.scale_high, x.options());
  const auto [row, rows] = around_middle(x.size(-2), how.cutoff);
  const auto [column, columns] = around_middle(x.size(-1), how.cutoff);
  scales.narrow(0, row, rows).narrow(1, column, columns).fill_(how.scale_low);
  return at::real(at::fft_ifft2(at::fft_ifftshift(waves * scales, at::IntArrayRef{-2, -1})));
}

Tensor without_tangent(const Tensor& positive, const Tensor& negative) {
  auto by_channel = [](const Tensor& a, const Tensor& b) {
    return (a * b).to(at::kDouble).sum({2, 3, 4}, true);
  };
  const auto pp = by_channel(positive, positive), uu = by_channel(negative, negative),
             pu = by_channel(positive, negative);
  const auto largest = (pp + uu) / 2 + (((pp - uu) / 2).square() + pu.square()).sqrt();
  // The first eigenvector of the products, in the form that does not vanish.
  const auto first = at::where(pp >= uu, largest - uu, pu),
             second = at::where(pp >= uu, pu, largest - pp);
  const auto length = first.square() + second.square();
  const auto weight = at::where(length > 0, second / length, at::zeros_like(length));
  return (positive * (weight * first) + negative * (weight * second)).to(at::kFloat);
}

Tensor guided(const Tensor& positive, const Tensor& negative, double cfg, const Experimental& how) {
  const double scale = how.zero_star ? best_scale(positive, negative) : 1.0;
  auto base = scale == 1.0 ? negative : negative * scale;
  if (how.tangential) base = without_tangent(positive, base);
  if (how.raag > 0) cfg = ratio_aware(positive, base, cfg, how.raag);
  if (how.frequencies) return base + filtered(positive - negative, how) * (cfg * scale);
  return base + (positive - base) * cfg;
}

Tensor rescaled_score(const Tensor& velocity, const Tensor& x, double t, const Experimental& how) {
  if (t == 1.0) return velocity;
  double ratio = how.score_k;
  if (t > 0) {
    const double clean = (1 - t) * (1 - t) / (t * t) * how.score_sigma * how.score_sigma;
    ratio = (clean + 1) / (clean / how.score_k + 1);
  }
  return ((velocity * (1 - t) + x) * ratio - x) / (1 - t);
}

}  // namespace distorch::nodes::wan_wrapper
