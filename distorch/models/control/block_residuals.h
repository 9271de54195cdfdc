#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distorch/models/control/control.h"
#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

/// What ControlNets for transformers share: each of their blocks gives one residual, which several
/// neighbouring blocks of the model get.
namespace distorch::models::control {

/// A block's residual: a matrix of its image tokens. One weights::Block.
class BlockResidual {
 public:
  BlockResidual(const weights::Scope& scope, std::int64_t width)
      : block_(scope), matrix_(scope, width, width) {}
  /// [B, tokens, width] -> the same shape.
  at::Tensor forward(const at::Tensor& tokens) const;

 private:
  weights::Block block_;
  nn::Linear matrix_;
};

/// What such a network takes: the latent, its noise level (`level` is what errors call it), one kind
/// of conditioning, and the picture that steers as a latent of `hint_channels`.
InputSpecs inputs_of(std::int64_t latent_channels, std::string level, InputSpec conditioning,
                     std::int64_t hint_channels);

/// The first `count` blocks of a transformer.
std::vector<Place> block_places(std::int64_t count);

/// The residuals of `places` by name: views of `packed` [blocks, B, tokens, width], where each block
/// serves `repeats` places.
Inputs spread_over_blocks(const at::Tensor& packed, const std::vector<Place>& places,
                          std::int64_t repeats);

}  // namespace distorch::models::control
