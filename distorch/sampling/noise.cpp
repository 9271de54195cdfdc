#include "distorch/sampling/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/samplers/float_math.h"

namespace distorch::sampling {
namespace {

class GaussianNoise : public NoiseSource {
 public:
  GaussianNoise(const at::Tensor& x, std::uint64_t seed)
      : shape_(x.sizes().vec()),
        options_(x.options()),
        generator_(at::detail::createCPUGenerator(seed)) {}
  at::Tensor operator()(float, float) override {
    return at::randn(shape_, generator_, options_.device(at::kCPU)).to(options_.device());
  }

 private:
  std::vector<std::int64_t> shape_;
  at::TensorOptions options_;
  at::Generator generator_;
};

class BrownianNoise : public NoiseSource {
 public:
  BrownianNoise(const at::Tensor& x, const Sigmas& sigmas, std::uint64_t seed)
      : options_(x.options()), tree_(lowest(sigmas), highest(sigmas), x.sizes().vec(), seed) {}

  at::Tensor operator()(float sigma, float sigma_next) override {
    const bool forward = sigma < sigma_next;
    const at::Tensor step =
        forward ? tree_.increment(sigma, sigma_next) : tree_.increment(sigma_next, sigma);
    const at::Tensor path = step.to(options_) * (forward ? 1 : -1);
    return path / f32::sqrt(std::abs(sigma_next - sigma));
  }

 private:
  static float lowest(const Sigmas& sigmas) {
    float low = highest(sigmas);
    for (float sigma : sigmas) {
      if (sigma > 0) {
        low = std::min(low, sigma);
      }
    }
    return low;
  }
  static float highest(const Sigmas& sigmas) {
    return *std::max_element(sigmas.begin(), sigmas.end());
  }

  at::TensorOptions options_;
  BrownianTree tree_;
};

}  // namespace

at::Tensor prepare_noise(const at::Tensor& like, std::uint64_t seed,
                         const std::vector<std::int64_t>& batch_index) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto options = like.options().device(at::kCPU);
  if (batch_index.empty()) {
    return at::randn(like.sizes(), generator, options);
  }
  std::int64_t last = 0;
  for (std::int64_t index : batch_index) {
    if (index < 0) {
      throw Error(ErrorKind::Usage, "batch index", fmt::format("{} is negative", index));
    }
    last = std::max(last, index);
  }
  std::vector<std::int64_t> one = like.sizes().vec();
  one[0] = 1;
  std::map<std::int64_t, at::Tensor> drawn;
  for (std::int64_t i = 0; i <= last; ++i) {
    at::Tensor noise = at::randn(one, generator, options);
    if (std::find(batch_index.begin(), batch_index.end(), i) != batch_index.end()) {
      drawn[i] = noise;
    }
  }
  std::vector<at::Tensor> parts;
  for (std::int64_t index : batch_index) {
    parts.push_back(drawn.at(index));
  }
  return at::cat(parts);
}

std::unique_ptr<NoiseSource> gaussian_noise(const at::Tensor& x, std::uint64_t seed) {
  return std::make_unique<GaussianNoise>(x, seed);
}

std::unique_ptr<NoiseSource> brownian_noise(const at::Tensor& x, const Sigmas& sigmas,
                                            std::uint64_t seed) {
  return std::make_unique<BrownianNoise>(x, sigmas, seed);
}

}  // namespace distorch::sampling
