#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_network.h"

namespace distorch::nodes::wan_wrapper {

/// What is known of a published model (WanModel::variant).
struct CacheNumbers {
  /// Of the polynomial that tells how much the result changes by how much the embedding of the
  /// noise level does, highest power first; of the embedding itself, and of its six parts.
  std::array<double, 5> embedding, parts;
  /// How much smaller what the layers add becomes from step to step, of 50 steps.
  std::vector<double> magnitudes;
};
const CacheNumbers& cache_numbers(const std::string& variant);

/// Velocities of a run of which some steps are told from earlier ones: what the layers added there
/// stands in their place. Each pass decides on its own; those that agree share a call. One object a
/// run, or a window of it. Source: ComfyUI-WanVideoWrapper, wanvideo/modules/model.py.
class StepCacheRun {
 public:
  /// `steps`: of the run.
  StepCacheRun(const CacheChoice& choice, const std::string& variant, std::int64_t steps);

  /// x [1, C, T, h, w]; `options` one for each pass -> [passes, C, T, h, w].
  at::Tensor velocities(WanNetwork& network, const at::Tensor& x, float timestep,
                        const std::vector<Pass>& passes, const std::vector<CallOptions>& options,
                        std::int64_t step);
  /// Calls of a pass whose layers were left out.
  int left_out() const { return left_out_; }

 private:
  /// Of one pass.
  struct Memory {
    at::Tensor change;  // by all layers when they last ran; undefined: never
    at::Tensor seen;    // the embedding, or the tokens, of that step
    double sum = 0, ratio = 1, error = 0;
    std::int64_t in_a_row = 0;
    double output = 0;  // mean size of the tokens behind the layers
  };
  bool leaves_out(Memory& memory, const at::Tensor& now, std::int64_t step) const;
  bool little_changed(Memory& memory, const at::Tensor& now) const;
  bool magnitude_kept(Memory& memory, std::int64_t step) const;
  at::Tensor compute(WanNetwork& network, const at::Tensor& x, float timestep,
                     const std::vector<Pass>& passes, const CallOptions& options,
                     const std::vector<Memory*>& memories, const at::Tensor& now);
  at::Tensor leave_out(WanNetwork& network, const at::Tensor& x, float timestep,
                       const std::vector<Pass>& passes, const CallOptions& options,
                       const std::vector<Memory*>& memories, const at::Tensor& now);
  at::Tensor observed(WanNetwork& network, const at::Tensor& x, float timestep,
                      const Pass& pass) const;

  CacheChoice choice_;
  const CacheNumbers& numbers_;
  std::int64_t last_;
  std::vector<Memory> memories_;
  int left_out_ = 0;
};

/// The velocities of passes without a cache, in as few calls as their options allow.
at::Tensor plain_velocities(WanNetwork& network, const at::Tensor& x, float timestep,
                            const std::vector<Pass>& passes,
                            const std::vector<CallOptions>& options);

}  // namespace distorch::nodes::wan_wrapper
