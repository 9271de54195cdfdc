#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/models/control/block_residuals.h"
#include "distorch/models/qwen_image/block.h"
#include "distorch/models/qwen_image/config.h"

/// What Qwen-Image's ControlNets share.
namespace distorch::models::qwen_image {

/// What they take: a latent, its timestep, a text and a picture of `hint_channels`.
InputSpecs control_inputs(const Config& config, std::int64_t hint_channels);
/// check_inputs() for a ControlNet, and Error(Shape) where the picture is not as large as the latent.
void check_control_inputs(const InputSpecs& specs, const Inputs& inputs);

/// Joint blocks like the model's, each with the residual that it gives.
class ControlBlocks {
 public:
  /// Four weights::Blocks more.
  void add(const weights::Scope& block, const weights::Scope& residual, const Config& config);
  /// `x` is the latent [B, C, T, h, w] that the tokens stand for. [blocks, B, image tokens, width].
  at::Tensor run(Streams tokens, const at::Tensor& time, const at::Tensor& x,
                 const Config& config) const;

 private:
  std::vector<JointBlock> blocks_;
  std::vector<control::BlockResidual> residuals_;
};

}  // namespace distorch::models::qwen_image
