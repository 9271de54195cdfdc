#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distorch/sampling/brownian_tree.h"
#include "distorch/sampling/model_sampling.h"

namespace distorch::sampling {

/// Standard normal numbers of `like`'s shape and dtype on the CPU, from a fresh generator. One draw
/// for the whole batch: picture 2 of a batch differs from picture 1 of the same seed. batch_index
/// (where not empty: one entry a batch item): item k gets the noise that batch position
/// batch_index[k] would have had if each position were drawn alone, in order.
/// Source: ComfyUI comfy/sample.py, prepare_noise.
at::Tensor prepare_noise(const at::Tensor& like, std::uint64_t seed,
                         const std::vector<std::int64_t>& batch_index = {});

/// The fresh noise of stochastic samplers, standard normal, shape and device of the latent.
class NoiseSource {
 public:
  virtual ~NoiseSource() = default;
  virtual at::Tensor operator()(float sigma, float sigma_next) = 0;
};

/// The next numbers of one generator, whatever the sigmas.
std::unique_ptr<NoiseSource> gaussian_noise(const at::Tensor& x, std::uint64_t seed);

/// Increments of one Brownian path over sigma, scaled to variance 1: noise of overlapping steps
/// agrees. The path covers the lowest sigma above 0 to the highest of `sigmas`.
std::unique_ptr<NoiseSource> brownian_noise(const at::Tensor& x, const Sigmas& sigmas,
                                            std::uint64_t seed);

}  // namespace distorch::sampling
