#include "distorch/sampling/latent_operations.h"

#include <fmt/format.h>

#include <array>

#include "distorch/base/error.h"

namespace distorch::sampling {
namespace {

// Length of every cell's vector of channels, and a little: [B, 1, H, W].
at::Tensor magnitude_of(const at::Tensor& latent, double little) {
  return at::linalg_vector_norm(latent, 2, at::IntArrayRef{1}, /*keepdim=*/true) + little;
}

at::Tensor apply(const TonemapReinhard& operation, const at::Tensor& latent) {
  const at::Tensor magnitude = magnitude_of(latent, 1e-10);
  constexpr std::array<std::int64_t, 3> all = {1, 2, 3};
  const at::Tensor mean = magnitude.mean(all, /*keepdim=*/true);
  const at::Tensor spread = at::std(magnitude, all, /*unbiased=*/true, /*keepdim=*/true);
  const at::Tensor top = (spread * 5 + mean) * operation.multiplier;
  const at::Tensor part = magnitude * (1.0 / top);
  return latent / magnitude * (part / (part + 1.0) * top);
}

at::Tensor gaussian(std::int64_t size, double sigma, const at::TensorOptions& options) {
  const at::Tensor line = at::linspace(-1, 1, size, options);
  const at::Tensor distance = (line.unsqueeze(1).square() + line.unsqueeze(0).square()).sqrt();
  const at::Tensor bell = (-distance.square() / (2.0 * sigma * sigma)).exp();
  return bell / bell.sum();
}

at::Tensor apply(const Sharpen& operation, const at::Tensor& latent) {
  constexpr double kStrength = -10;
  const std::int64_t radius = operation.radius;
  if (latent.dim() != 4 || latent.size(2) <= radius || latent.size(3) <= radius) {
    throw Error(ErrorKind::Usage, "sharpen_radius",
                fmt::format("{} needs a latent of more cells a side", radius));
  }
  const std::int64_t size = 2 * radius + 1;
  at::Tensor kernel =
      gaussian(size, operation.sigma, latent.options()) * (operation.alpha * kStrength);
  // The middle makes the sum 1: what is even stays as it is.
  at::Tensor middle = kernel.select(0, radius).select(0, radius);
  middle.add_(1.0 - kernel.sum());
  const at::Tensor magnitude = magnitude_of(latent, 1e-6);
  const at::Tensor padded =
      at::reflection_pad2d(latent / magnitude, {radius, radius, radius, radius});
  const std::int64_t channels = latent.size(1);
  const at::Tensor kernels = kernel.expand({channels, 1, size, size});
  return magnitude * at::conv2d(padded, kernels, {}, at::IntArrayRef{1}, at::IntArrayRef{0},
                                at::IntArrayRef{1}, channels);
}

}  // namespace

at::Tensor apply_operation(const LatentOperation& operation, const at::Tensor& latent) {
  return std::visit([&](const auto& one) { return apply(one, latent); }, operation);
}

}  // namespace distorch::sampling
