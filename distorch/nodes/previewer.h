#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

/// Pictures of a latent while it is sampled, by the method of --preview-method: the family's linear
/// factors, or TAESD, of Wan's latents one of the small video decoders, where vae_approx has the one
/// for this latent (else the factors, with a warning). Source: ComfyUI latent_preview.py.
class Previewer {
 public:
  /// `format` must outlive it.
  Previewer(ModelCache& models, const models::LatentFormat& format);

  /// Whether there are previews at all.
  bool active() const { return small_ || linear_; }
  /// x0 [B, C, (T,) h, w] in the network's scale -> [H, W, 3] uint8 on the CPU, of the first of the
  /// batch (and its first frame).
  at::Tensor operator()(const at::Tensor& x0);

 private:
  const models::LatentFormat& format_;
  streaming::Engine& engine_;
  bool linear_ = false;
  std::shared_ptr<LoadedVae> small_;
};

}  // namespace distorch::nodes
