#pragma once
#include <mutex>

#include "distorch/nodes/control.h"
#include "distorch/nodes/model_patch.h"
#include "distorch/nodes/planned_call.h"
#include "distorch/nodes/step_modulations.h"
#include "distorch/nodes/values.h"
#include "distorch/sampling/guidance.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// A diffusion model of any family as sampling sees one: x and sigmas are float32, the network
/// computes in its own dtype, on the device that its weights are streamed to. Latents outside are
/// the VAE's, inside they are in the family's format. What the network is called with follows from
/// its inputs (models/network.h), what they hold from the family. ControlNets run inside a step and
/// give the network more inputs.
class SampledModel final : public sampling::X0Model {
 public:
  explicit SampledModel(const Model& model);

  /// Brings the model's weights, and those of the ControlNets that its conditionings use, into place
  /// and keeps them there for as long as this object lives; the plans are made with dry runs of one
  /// call, which has the inputs that the conditionings are encoded to.
  void prepare(streaming::Engine& engine, const RunShape& shape);
  /// The same in two steps, for models that are to be in place together: what is to be brought, the
  /// model's own weights first, and what the engine gave for it.
  std::vector<streaming::Engine::Wanted> wanted(streaming::Engine& engine, const RunShape& shape);
  void hold(std::vector<streaming::Engine::Use> uses) { uses_ = std::move(uses); }
  const Model& value() const { return model_; }
  /// Calls of a step, as wanted() found them (PlannedCall::calls).
  std::int64_t planned_calls() const { return planned_calls_; }
  /// ControlNets of this run are those of others too, which run on other threads: `turns` is held
  /// while one runs. It must outlive this object.
  void run_controls_by_turns(std::mutex& turns) { turns_ = &turns; }

  const sampling::ModelSampling& sampling() const override;
  at::Device device() const override { return device_; }
  void expect(const std::vector<float>& sigmas) override { modulations_.expect(sigmas); }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                   const sampling::BatchedInputs& inputs,
                   const sampling::CallFacts& facts) override;
  sampling::ModelInputs encode(const sampling::ConditioningItem& item,
                               const sampling::EncodeContext& context) const override;
  /// No call is larger than the one that was planned for.
  bool fits(at::IntArrayRef x_shape,
            const std::vector<const sampling::ModelInputs*>& inputs) const override;
  at::Tensor scale_latent_inpaint(const at::Tensor& sigma, const at::Tensor& noise,
                                  const at::Tensor& latent_image) const override;
  at::Tensor process_latent_in(const at::Tensor& latent) const override;
  at::Tensor process_latent_out(const at::Tensor& latent) const override;
  std::int64_t latent_channels() const override { return format().channels; }
  int latent_dimensions() const override { return format().dimensions; }

 private:
  /// What the model's patches see.
  void add_patches(models::Inputs& call, at::IntArrayRef x);
  void check_text(const models::InputSpec& spec, const at::Tensor& value,
                  const sampling::ConditioningItem& item) const;
  const models::LatentFormat& format() const { return model_.latent_format(); }
  /// A call whose network may keep what it makes of reference pictures (models/reference_cache.h).
  at::Tensor through_cache(models::Inputs& call, at::IntArrayRef x,
                           const std::vector<const void*>& owners,
                           const std::function<at::Tensor()>& step);
  /// What the family makes of a conditioning, wherever it puts it.
  sampling::ModelInputs encode_anywhere(const sampling::ConditioningItem& item,
                                        const sampling::EncodeContext& context) const;

  Model model_;
  std::optional<ControlRun> control_;
  std::optional<PatchRun> patch_run_;
  at::Device device_;
  std::vector<streaming::Engine::Use> uses_;
  StepModulations modulations_;
  bool keeps_references_ = false;
  /// Of the references, by the conditionings that have them and the sizes of their latents.
  std::map<std::pair<std::vector<const void*>, std::vector<std::int64_t>>, at::Tensor> kept_;
  std::mutex* turns_ = nullptr;  // of ControlNets; null: they are nobody else's
  std::int64_t planned_calls_ = 1;
  std::int64_t planned_cells_ = 0;  // product of all sizes but the channels; 0: not planned
};

/// A quick look at a latent without the VAE: x0 [B, C, h, w] or [B, C, T, h, w] in the network's
/// scale -> [h, w, 3] uint8 on the CPU, of the first of the batch (and its first frame).
at::Tensor preview_pixels(const models::LatentFormat& format, const at::Tensor& x0);

}  // namespace distorch::nodes
