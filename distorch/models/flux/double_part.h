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
  /// What attend() gave, as block.run() passes it on.
  static weights::Tensors tensors_of(const Attended& y) {
    weights::Tensors all{y.x.img, y.x.txt, y.img_modulation, y.txt_modulation};
    all.insert(all.end(), y.told.begin(), y.told.end());
    return all;
  }
  /// The second half, of tensors_of() the first: {img, txt}.
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
