#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/sampling/model_sampling.h"

namespace distorch::sampling {

/// x0 with guidance, and x0 of the negative conditioning alone.
struct GuidedPair {
  at::Tensor denoised;
  at::Tensor uncond;
};

/// A model with its conditionings, as a sampler sees it. x [B, C, ...] float32 on the model's
/// device.
class Denoiser {
 public:
  virtual ~Denoiser() = default;

  /// The guided estimate of the clean latent; same shape as x.
  virtual at::Tensor operator()(const at::Tensor& x, float sigma) = 0;
  /// The same with the negative's own estimate, which is then computed even where guidance is 1
  /// (CFG++).
  virtual GuidedPair with_uncond(const at::Tensor& x, float sigma) = 0;
  virtual const ModelSampling& model_sampling() const = 0;
};

}  // namespace distorch::sampling
