#pragma once
#include <string>
#include <vector>

#include "distorch/models/flux/block.h"
#include "distorch/models/joint_parts.h"
#include "distorch/models/modulated.h"
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

  /// Of vec at some levels, or what a shared modulation has made of it (Common::img).
  weights::Tensors image_modulations(const weights::Tensors& levels) const {
    if (shared_modulation) return levels;
    return parts.image_modulation.run_each(
        levels, [this](const at::Tensor& vec) { return layers.image_modulation(vec); });
  }
  /// The same for Common::txt.
  weights::Tensors text_modulations(const weights::Tensors& levels) const {
    if (shared_modulation) return levels;
    return parts.text_modulation.run_each(
        levels, [this](const at::Tensor& vec) { return layers.text_modulation(vec); });
  }
  /// What attend() gave, as parts.attention's block passes it on.
  static weights::Tensors tensors_of(const Attended& y) {
    weights::Tensors all{y.x.img, y.x.txt, y.img_modulation, y.txt_modulation};
    all.insert(all.end(), y.told.begin(), y.told.end());
    return all;
  }
  /// The MLPs, of tensors_of() attention: {img, txt}.
  weights::Tensors finish(const weights::Tensors& attended, std::int64_t references) const {
    return parts.mlp.block.run(attended, [&](const weights::Tensors& t) -> weights::Tensors {
      auto y = layers.finish({{t[0], t[1]}, t[2], t[3], {t.begin() + 4, t.end()}}, references);
      return {y.img, y.txt};
    });
  }

  std::string name;
  JointParts parts;
  DoubleBlock layers;
  bool shared_modulation;
};

/// A single block of a network: forward() of its layers runs in `block`.
struct SinglePart {
  SinglePart(const weights::Scope& place, const Config& config)
      : name(place.prefix()),
        // In this order: blocks are declared as they run.
        modulation(config.shared_modulation ? place : place.block(place.prefix() + ".modulation")),
        main(place.block()),
        layers(modulation.scope, main.scope, config),
        shared_modulation(config.shared_modulation) {}

  /// As DoublePart's, for Common::img.
  weights::Tensors modulations(const weights::Tensors& levels) const {
    if (shared_modulation) return levels;
    return modulation.run_each(levels,
                               [this](const at::Tensor& vec) { return layers.modulation(vec); });
  }

  std::string name;
  BlockPart modulation, main;
  SingleBlock layers;
  bool shared_modulation;
};

/// What modulates the blocks of a call that was given it (modulated.h).
class BlockModulations {
 public:
  /// `numbers`: kModulations, undefined where none are given. Error(Shape) where they are not as many as
  /// the call takes.
  BlockModulations(const Config& config, const at::Tensor& numbers, std::int64_t batch,
                   at::ScalarType dtype)
      : hidden_(config.hidden),
        singles_(2 * config.depth * kDouble),
        batch_(batch),
        given_(numbers, numbers_of(config, batch), dtype) {}
  explicit operator bool() const { return static_cast<bool>(given_); }
  /// Of block `index` of its kind: Common::img and txt of a double block, img of a single one.
  at::Tensor image(std::int64_t index) const { return rows(2 * index * kDouble, kDouble); }
  at::Tensor text(std::int64_t index) const { return rows((2 * index + 1) * kDouble, kDouble); }
  at::Tensor single(std::int64_t index) const { return rows(singles_ + index * kSingle, kSingle); }

  /// Modulated::modulation_numbers().
  static std::int64_t numbers_of(const Config& config, std::int64_t batch) {
    return batch * config.hidden * (2 * config.depth * kDouble + config.single_depth * kSingle);
  }
  /// Modulated::modulations(), of vec at each level.
  static at::Tensor made(const std::vector<DoublePart>& doubles,
                         const std::vector<SinglePart>& singles, const weights::Tensors& levels) {
    MadeModulations made;
    for (const auto& part : doubles) {
      made.add(part.image_modulations(levels));
      made.add(part.text_modulations(levels));
    }
    for (const auto& part : singles) made.add(part.modulations(levels));
    return made.all();
  }

 private:
  /// Rows of `hidden` numbers.
  static constexpr std::int64_t kDouble = 6, kSingle = 3;
  at::Tensor rows(std::int64_t before, std::int64_t count) const {
    return given_.of(before * hidden_, batch_, count * hidden_);
  }

  std::int64_t hidden_, singles_, batch_;
  GivenModulations given_;
};

}  // namespace distorch::models::flux
