#pragma once
#include <string>

#include "distorch/models/flux/block.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::flux {

/// A double block of a network: the weights of its MLPs are a block of their own, so that not all of
/// its numbers, more than twice those of a single block, have to be there at a time. `block` is for
/// DoubleBlock::attend(), `mlp` for finish().
struct DoublePart {
  // In this order: blocks are declared as they run.
  DoublePart(const weights::Scope& place, const Config& config)
      : name(place.prefix()),
        scope(place.block()),
        mlp_scope(place.block(name + ".mlp")),
        block(scope),
        mlp(mlp_scope),
        layers(scope, mlp_scope, config) {}
  /// The second half, of what attend() gave as {img, txt, modulations of both, told...}: {img, txt}.
  weights::Tensors finish(const weights::Tensors& attended, std::int64_t references) const {
    return mlp.run(attended, [&](const weights::Tensors& t) -> weights::Tensors {
      auto y = layers.finish({{t[0], t[1]}, t[2], t[3], {t.begin() + 4, t.end()}}, references);
      return {y.img, y.txt};
    });
  }

  std::string name;
  weights::Scope scope, mlp_scope;
  weights::Block block, mlp;
  DoubleBlock layers;
};

}  // namespace distorch::models::flux
