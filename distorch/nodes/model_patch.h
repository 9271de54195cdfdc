#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/models/network.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::nodes {

/// What MODEL_PATCH carries: the tensors of a file with further layers of a diffusion model.
struct ModelPatch {
  weights::Checkpoint tensors;
  std::string identity;  // of the file
  models::PatchPicture picture;
};

/// The model with one more patch that looks at the picture of `use`.
Model with_patch(Model model, const ModelPatch& patch, PatchUse use, ModelCache& models);

/// What the patches of a model see in one run: their pictures as latents of the size that is
/// sampled, encoded when that size is first asked for.
class PatchRun {
 public:
  PatchRun(const Model& model, streaming::Engine& engine, at::Device device);

  /// For latents of shape `x`, by the names of the network's inputs.
  const models::Inputs& inputs(at::IntArrayRef x);
  /// The same as a dry run knows them.
  void add_to(models::KnownInputs& known, at::IntArrayRef x);

 private:
  at::Tensor latent_of(const PatchUse& use, at::IntArrayRef x) const;
  at::Tensor inpainting(const PatchUse& use, at::IntArrayRef x) const;
  /// A picture as large as the latent's picture.
  at::Tensor fitted(const PatchUse& use, const at::Tensor& pixels, at::IntArrayRef x) const;
  /// A picture as a latent in the network's scale.
  at::Tensor encoded(const PatchUse& use, const at::Tensor& pixels) const;

  struct Encoded {
    std::int64_t height, width;
    models::Inputs inputs;
  };

  const models::LatentFormat& format_;
  const std::vector<PatchUse>& uses_;
  streaming::Engine& engine_;
  at::Device device_;
  std::vector<Encoded> encoded_;
};

}  // namespace distorch::nodes
