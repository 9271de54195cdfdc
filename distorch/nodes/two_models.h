#pragma once
#include "distorch/nodes/sampled_model.h"

namespace distorch::nodes {

/// Brings two models into place for one run: together where they compute on one device. Error(Usage)
/// where both are the same weights with different LoRAs, which cannot be there at once.
void prepare_both(streaming::Engine& engine, SampledModel& positive, SampledModel& negative,
                  const RunShape& positive_shape, const RunShape& negative_shape);

/// Two prepared models as sampling sees one: the positive conditionings are asked of the first, the
/// negative ones of the second, each in a call of its own; all else is the first's. Both must outlive
/// it. Source: ComfyUI comfy_extras/nodes_custom_sampler.py, Guider_DualModel.
class TwoModels final : public sampling::X0Model {
 public:
  TwoModels(SampledModel& positive, SampledModel& negative)
      : positive_(positive), negative_(negative) {}

  const sampling::ModelSampling& sampling() const override { return positive_.sampling(); }
  at::Device device() const override { return positive_.device(); }
  void expect(const std::vector<float>& sigmas) override {
    positive_.expect(sigmas);
    negative_.expect(sigmas);
  }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                   const sampling::BatchedInputs& inputs,
                   const sampling::CallFacts& facts) override;
  sampling::ModelInputs encode(const sampling::ConditioningItem& item,
                               const sampling::EncodeContext& context) const override;
  bool fits(at::IntArrayRef x_shape,
            const std::vector<const sampling::ModelInputs*>& inputs) const override;
  at::Tensor process_latent_in(const at::Tensor& latent) const override {
    return positive_.process_latent_in(latent);
  }
  at::Tensor process_latent_out(const at::Tensor& latent) const override {
    return positive_.process_latent_out(latent);
  }
  std::int64_t latent_channels() const override { return positive_.latent_channels(); }
  int latent_dimensions() const override { return positive_.latent_dimensions(); }

 private:
  SampledModel& positive_;
  SampledModel& negative_;
};

}  // namespace distorch::nodes
