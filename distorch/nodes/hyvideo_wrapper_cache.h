#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/nodes/hyvideo_wrapper_network.h"

namespace distorch::nodes::hyvideo {

/// Velocities of a run of which some steps are told from earlier ones: what the blocks added there
/// stands in their place, as long as what goes into them changes little. One object for the passes
/// of one call, or of a window of it. Source: TeaCache (arXiv:2411.19108) as in
/// ComfyUI-HunyuanVideoWrapper, hyvideo/modules/models.py.
class TeaCacheRun {
 public:
  /// `steps`: of the run.
  TeaCacheRun(const TeaCache& choice, std::int64_t steps);

  /// x [1, C, T, h, w] -> [passes, C, T, h, w].
  at::Tensor velocities(HyNetwork& network, const at::Tensor& x, float timestep,
                        const std::vector<Pass>& passes, const CallOptions& options,
                        std::int64_t step);
  /// Calls whose blocks were left out.
  int left_out() const { return left_out_; }

 private:
  bool little_changed(const at::Tensor& now);

  TeaCache choice_;
  std::int64_t steps_, last_;
  at::Tensor seen_;    // what went into the blocks
  at::Tensor change_;  // by them when they last ran
  double sum_ = 0;
  std::int64_t calls_ = 0;
  int left_out_ = 0;
};

}  // namespace distorch::nodes::hyvideo
