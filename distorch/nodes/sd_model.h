#pragma once
#include "distorch/nodes/values.h"
#include "distorch/sampling/guidance.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// What a run of a diffusion model will look like, known before its first step.
struct RunShape {
  std::vector<std::int64_t> latent;  // [B, C, h, w]
  int steps = 1;
  double cfg = 1;
  const sampling::Conditioning& positive;
  const sampling::Conditioning& negative;
};

/// A Stable Diffusion model as sampling sees one: x and sigmas are float32, the network computes in
/// its own dtype, on the device that its weights are streamed to. Latents outside are the VAE's,
/// inside they are scaled by the family's factor. Models with more input channels than a latent has
/// (inpainting, editing by instruction) get them from "concat_latent_image" and "concat_mask" of
/// the conditioning, else from the latent and its noise mask. Source: ComfyUI comfy/model_base.py,
/// BaseModel.
class SdModel final : public sampling::X0Model {
 public:
  explicit SdModel(const Model& model);

  /// Applies the model's LoRAs and brings its weights into place for the run; the plan is made with
  /// a dry run of one call.
  void prepare(streaming::Engine& engine, const RunShape& shape);

  const sampling::ModelSampling& sampling() const override { return *loaded_->sampling; }
  at::Device device() const override { return device_; }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                   const sampling::BatchedInputs& inputs) override;
  sampling::ModelInputs encode(const sampling::ConditioningItem& item,
                               const sampling::EncodeContext& context) const override;
  /// No call is larger than the one that was planned for.
  bool fits(at::IntArrayRef x_shape,
            const std::vector<const sampling::ModelInputs*>& inputs) const override;
  at::Tensor process_latent_in(const at::Tensor& latent) const override;
  at::Tensor process_latent_out(const at::Tensor& latent) const override;
  std::int64_t latent_channels() const override { return loaded_->family->latent.channels; }

 private:
  at::Tensor concat_of(const sampling::ConditioningItem& item,
                       const sampling::EncodeContext& context) const;

  std::shared_ptr<LoadedDiffusion> loaded_;
  std::vector<streaming::LoraUse> loras_;
  at::Device device_;
  std::int64_t planned_cells_ = 0;  // batch times height times width; 0: not planned
};

/// A quick look at a latent without the VAE: x0 [B, C, h, w] in the network's scale -> [h, w, 3]
/// uint8 on the CPU, of the first of the batch.
at::Tensor preview_pixels(const models::LatentFormat& format, const at::Tensor& x0);

}  // namespace distorch::nodes
