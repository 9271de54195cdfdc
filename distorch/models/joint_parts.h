#pragma once
#include <functional>
#include <string>

#include "distorch/weights/manifest.h"

namespace distorch::models {

/// What `layer` makes of each of `inputs`, `beside` being the same for all, in one run of a block.
inline weights::Tensors run_each(
    const weights::Block& block, const weights::Tensors& inputs, const weights::Tensors& beside,
    const std::function<at::Tensor(const at::Tensor& one, const weights::Tensors& beside)>& layer) {
  auto taken = inputs;
  taken.insert(taken.end(), beside.begin(), beside.end());
  return block.run(taken, [&, count = inputs.size()](const weights::Tensors& t) {
    const auto end = t.begin() + static_cast<std::ptrdiff_t>(count);
    weights::Tensors made;
    for (auto one = t.begin(); one != end; ++one) made.push_back(layer(*one, {end, t.end()}));
    return made;
  });
}

/// A weights::Block and where the weights in it are declared.
struct BlockPart {
  explicit BlockPart(const weights::Scope& in) : scope(in), block(in) {}
  weights::Tensors run_each(const weights::Tensors& inputs,
                            const std::function<at::Tensor(const at::Tensor&)>& layer) const {
    return models::run_each(block, inputs, {},
                            [&layer](const at::Tensor& one, const auto&) { return layer(one); });
  }

  weights::Scope scope;
  weights::Block block;
};

/// A block in which two kinds of tokens attend together, as weights::Blocks that run one after the
/// other: what modulates each kind, attention, the MLPs. Of its numbers, 36 · width^2 in FLUX.1 and
/// Qwen-Image, 6, 6, 8 and 16 have to be there at a time.
struct JointParts {
  /// `place`: where its weights are, "double_blocks.0"; the block of attention has that name.
  /// `modulated`: whether it has numbers of its own for that; else nothing may use the modulations.
  JointParts(const weights::Scope& place, bool modulated)
      // In this order: blocks are declared as they run.
      : image_modulation(modulated ? place.block(place.prefix() + ".img_modulation") : place),
        text_modulation(modulated ? place.block(place.prefix() + ".txt_modulation") : place),
        attention(place.block()),
        mlp(place.block(place.prefix() + ".mlp")) {}

  BlockPart image_modulation, text_modulation, attention, mlp;
};

}  // namespace distorch::models
