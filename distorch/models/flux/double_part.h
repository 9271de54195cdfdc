#pragma once
#include <string>

#include "distorch/models/flux/block.h"
#include "distorch/models/joint_parts.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::flux {

/// A double block of a network: attend() of its layers runs in parts.attention, between the two
/// others here.
struct DoublePart {
  DoublePart(const weights::Scope& place, const Config& config)
      : name(place.prefix()),
        parts(place, !config.shared_modulation),
        layers(parts, config),
        shared_modulation(config.shared_modulation) {}

  /// Of vec, or what a shared modulation has made of it (Common::img and txt).
  Modulations modulations(const at::Tensor& img, const at::Tensor& txt) const {
    if (shared_modulation) return {img, txt};
    auto made =
        parts.modulation.run({img, txt}, [&](const weights::Tensors& t) -> weights::Tensors {
          auto both = layers.modulations(t[0], t[1]);
          return {both.img, both.txt};
        });
    return {made[0], made[1]};
  }
  /// What attend() gave, as parts.attention.run() passes it on.
  static weights::Tensors tensors_of(const Attended& y) {
    weights::Tensors all{y.x.img, y.x.txt, y.img_modulation, y.txt_modulation};
    all.insert(all.end(), y.told.begin(), y.told.end());
    return all;
  }
  /// The MLPs, of tensors_of() attention: {img, txt}.
  weights::Tensors finish(const weights::Tensors& attended, std::int64_t references) const {
    return parts.mlp.run(attended, [&](const weights::Tensors& t) -> weights::Tensors {
      auto y = layers.finish({{t[0], t[1]}, t[2], t[3], {t.begin() + 4, t.end()}}, references);
      return {y.img, y.txt};
    });
  }

  std::string name;
  JointParts parts;
  DoubleBlock layers;
  bool shared_modulation;
};

}  // namespace distorch::models::flux
