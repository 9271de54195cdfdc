#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "distorch/sampling/guidance.h"
#include "distorch/sampling/guidance_stages.h"

namespace distorch::sampling {

/// What is known of one evaluation, and what stages change: both estimates, and what comes of them.
struct GuidanceStep {
  const at::Tensor& x;
  float sigma;
  double cfg;
  at::Tensor cond;
  at::Tensor uncond;  // 0 where it was not computed
  bool has_uncond;
  at::Tensor denoised;  // once the formula was applied
  /// Asks the model about x once more: with the positive's conditionings, in a changed network.
  std::function<at::Tensor(const NetworkChange&)> ask;
  /// The negative's estimate for another latent, and where its attention goes: [B, 1, h, w].
  std::function<at::Tensor(const at::Tensor& x)> ask_negative;
  std::function<at::Tensor()> attention_map;
};

/// Carries the stages of a MODEL out over one run. Some remember earlier steps.
class Guidance {
 public:
  explicit Guidance(const GuidanceStages& stages) : stages_(stages) {}

  /// Changes the estimates before they are put together.
  void before(GuidanceStep& step);
  /// Puts them together (`denoised`), with everything that comes after that.
  void combine(GuidanceStep& step) const;
  /// Whether the negative is needed even where the formula leaves it out.
  bool needs_negative() const { return last_of<SelfAttention>(stages_) != nullptr; }
  /// Whether combine() does more than the plain formula.
  bool changes_result() const;
  /// The scale of a run of scale `cfg`, at this noise level.
  double cfg_at(float sigma, double cfg) const;
  /// What the negative is computed without at this noise level; null: nothing.
  const std::set<std::string>* skipped_for_negative(float sigma) const;

 private:
  /// Running mean of the guidance, of every ProjectedGuidance.
  struct Momentum {
    float sigma = 0;
    at::Tensor mean;
  };
  void project(const ProjectedGuidance& stage, Momentum& momentum, GuidanceStep& step) const;

  GuidanceStages stages_;
  std::map<std::size_t, Momentum> momenta_;  // by place in stages_
};

}  // namespace distorch::sampling
