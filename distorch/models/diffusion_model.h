#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/weights/manifest.h"

namespace distorch::models {

/// One evaluation of a diffusion model. B counts conditions times pictures: cond and uncond go in
/// one batch, so that weights are fetched once.
struct DiffusionInput {
  at::Tensor x;  // [B, C, h, w] latent as the model wants it (already scaled for its noise level)
  at::Tensor timestep;  // [B] float32, the number that goes into the sinusoidal embedding
  at::Tensor context;   // [B, L, D] text states
  at::Tensor concat;    // [B, C', h, w] further input channels (inpainting: mask, masked latent);
                        // undefined: none
  at::Tensor vector;    // [B, V] pooled conditioning where a model has it; undefined: none
};

/// A denoising network without samplers around it.
class DiffusionModel {
 public:
  virtual ~DiffusionModel() = default;
  /// Its weights and blocks. Someone attaches a source to it before apply().
  virtual weights::Manifest& manifest() = 0;
  /// The network's raw output (noise or velocity), float32, shape of x. Computes in the dtype of
  /// its weights. Error(Shape) where an input does not fit the model.
  virtual at::Tensor apply(const DiffusionInput& input) const = 0;
};

}  // namespace distorch::models
