#pragma once
#include <chrono>

#include "distorch/graph/call.h"
#include "distorch/nodes/previewer.h"
#include "distorch/nodes/sampled_model.h"
#include "distorch/nodes/team.h"
#include "distorch/nodes/two_models.h"
#include "distorch/nodes/values.h"
#include "distorch/sampling/ksampler.h"
#include "distorch/sampling/sigmas.h"

namespace distorch::nodes {

/// What the NOISE type carries. No seed: no noise.
struct NoiseChoice {
  std::optional<std::uint64_t> seed;
};

/// What the GUIDER type carries.
struct ModelGuider {
  Model model;
  sampling::Guider guider;
  /// Another model that the negative is asked of; nothing: the same.
  std::optional<Model> negative_model = {};
};

/// Noise of a latent's shape, on the CPU; 0 where the choice has no seed.
at::Tensor noise_for(const sampling::Latent& latent, const NoiseChoice& choice);

/// Progress of every step, and now and then a quick look at the latent (payload: media::Image, type
/// PREVIEW). `format` must outlive it.
class StepReport {
 public:
  StepReport(graph::Call& call, const models::LatentFormat& format);
  void operator()(const sampling::StepEvent& event);

 private:
  using Clock = std::chrono::steady_clock;
  void show(const at::Tensor& denoised);

  graph::Call& call_;
  Previewer preview_;
  Clock::time_point shown_{};
};

/// A model of a run, its weights in place for as long as this object lives, with its conditionings'
/// controls opened. The model that a later node of the prompt runs is planned with it and comes
/// meanwhile (streaming/engine.h). Error(Shape) where the latent is not one of the model's.
class PreparedRun {
 public:
  PreparedRun(graph::Call& call, ModelGuider guider, const at::Tensor& latent, int steps);

  sampling::X0Model& model();
  const sampling::Guider& guider() const { return guider_.guider; }
  /// Only plans are wanted: the caller gives its latent back as it is.
  bool plan_only() const { return plan_only_; }

 private:
  void prepare_one(graph::Call& call, const RunShape& shape);

  ModelGuider guider_;
  SampledModel sampled_;
  std::optional<SampledModel> negative_;
  std::optional<TwoModels> both_;
  std::unique_ptr<Team> team_;
  bool plan_only_ = false;
};

}  // namespace distorch::nodes
