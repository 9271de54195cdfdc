#include "distorch/models/sd/free_u.h"

namespace distorch::models::sd {
namespace {

using at::Tensor;

/// x [B, C, h, w] with the 2x2 lowest frequencies (around the mean) scaled.
Tensor scale_low_frequencies(const Tensor& x, double scale) {
  constexpr std::int64_t kReach = 1;  // frequencies to each side of the mean
  auto spectrum = at::fft_fftshift(at::fft_fftn(x.to(at::kFloat), {}, {-2, -1}), {-2, -1});
  auto low = spectrum;
  for (std::int64_t dim : {2, 3}) {
    auto middle = spectrum.size(dim) / 2;
    auto first = std::max<std::int64_t>(0, middle - kReach);
    low = low.narrow(dim, first, std::min(middle + kReach, spectrum.size(dim)) - first);
  }
  low.mul_(scale);
  auto back = at::fft_ifftn(at::fft_ifftshift(spectrum, {-2, -1}), {}, {-2, -1});
  return at::real(back).to(x.scalar_type()).contiguous(x.suggest_memory_format());
}

/// How strongly each place responds, 0..1 over the picture: h [B, C, h, w] -> [B, 1, h, w].
Tensor response(const Tensor& h) {
  auto mean = h.mean({1}, /*keepdim=*/true);
  auto low = mean.amin({1, 2, 3}, true), high = mean.amax({1, 2, 3}, true);
  return (mean - low) / (high - low);
}

void apply(const FreeU& patch, std::int64_t model_channels, Tensor& h, Tensor& skip) {
  bool wide = h.size(1) == 4 * model_channels, middle = h.size(1) == 2 * model_channels;
  if (!wide && !middle) return;
  double b = wide ? patch.b1 : patch.b2, s = wide ? patch.s1 : patch.s2;
  auto half = h.size(1) / 2;
  auto first = h.narrow(1, 0, half), rest = h.narrow(1, half, h.size(1) - half);
  first = patch.version == 1 ? first * b : first * (response(h) * (b - 1) + 1);
  h = at::cat({first, rest}, 1);
  skip = scale_low_frequencies(skip, s);
}

}  // namespace

ResBlock::Edit free_u_edit(const std::vector<FreeU>& list, std::int64_t model_channels) {
  if (list.empty()) return {};
  return [list, model_channels](Tensor& h, Tensor& skip) {
    for (const auto& patch : list) apply(patch, model_channels, h, skip);
  };
}

}  // namespace distorch::models::sd
