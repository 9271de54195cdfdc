#include "distorch/models/z_image/next_dit.h"

#include <fmt/format.h>

#include "distorch/models/model_patch.h"
#include "distorch/models/z_image/control_patch.h"
#include "distorch/models/z_image/embed.h"
#include "distorch/models/z_image/layer.h"

namespace distorch::models::z_image {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

nn::RopeTable part_of(const nn::RopeTable& rope, std::int64_t first, std::int64_t count) {
  return {rope.cos.narrow(1, first, count), rope.sin.narrow(1, first, count), rope.halves};
}

/// Norm, modulation and the projection to cells of the latent, of the picture's tokens alone.
class FinalLayer {
 public:
  FinalLayer(const Scope& s, const NextDitConfig& c)
      : config_(c),
        block_(s),
        modulation_(s / "adaLN_modulation" / 1, c.embedded_width, c.width),
        linear_(s / "linear", c.width, c.patch * c.patch * c.channels) {}

  /// x [B, text + image, width] -> [B, channels, height, width of the latent], float32.
  Tensor forward(const Tensor& x, const Tensor& activated, const Tensor& latent,
                 const Lengths& lengths) const {
    auto height = latent.size(2), width = latent.size(3), p = config_.patch;
    return block_.run1({x, activated}, [&](const Tensors& in) {
      auto image = in[0].narrow(1, lengths.text, lengths.height * lengths.width);
      auto scale = modulation_(in[1]).unsqueeze(1) + 1;
      auto y = linear_(nn::layer_norm(image).mul_(scale));
      // The network predicts the way from noise to picture, sampling takes the other one.
      return y.view({y.size(0), lengths.height, lengths.width, p, p, config_.channels})
          .permute({0, 5, 1, 3, 2, 4})
          .reshape({y.size(0), config_.channels, lengths.height * p, lengths.width * p})
          .narrow(2, 0, height)
          .narrow(3, 0, width)
          .to(at::kFloat)
          .neg()
          .contiguous();
    });
  }

 private:
  NextDitConfig config_;
  weights::Block block_;
  nn::Linear modulation_, linear_;
};

InputSpecs next_dit_inputs(const NextDitConfig& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch();
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, Extent::number(c.channels), Extent::cells()},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), Extent::number(c.text_width)}}};
  for (std::size_t i = 0; i < c.patches.size(); ++i) {
    auto index = static_cast<int>(i);
    specs.push_back({.name = patch_input(index),
                     .meaning = "picture of a ControlNet",
                     .shape = {batch, Extent::number(c.patches[i].channels), Extent::cells()},
                     .optional = true,
                     .source = Source::Control});
    specs.push_back({.name = patch_strength_input(index),
                     .meaning = "strength of a ControlNet",
                     .kind = Kind::Constant,
                     .optional = true,
                     .source = Source::Control});
  }
  return specs;
}

/// A ControlNet in one call.
struct Controlled {
  const ControlPatch& patch;
  ControlPatch::State state;
};

}  // namespace

struct NextDit::Parts {
  /// In the order of execution.
  Parts(const Scope& s, const NextDitConfig& c) : embed(s.block("embed"), c) {
    for (std::int64_t i = 0; i < c.context_refiners; ++i)
      context_refiner.emplace_back((s / "context_refiner" / i).block(), c, false);
    for (std::size_t i = 0; i < c.patches.size(); ++i)
      patches.emplace_back(s / "model_patch" / static_cast<std::int64_t>(i), c, c.patches[i]);
    for (std::int64_t i = 0; i < c.noise_refiners; ++i) {
      noise_refiner.emplace_back((s / "noise_refiner" / i).block(), c, true);
      for (auto& patch : patches) patch.add_refiner();
    }
    for (std::int64_t i = 0; i < c.layers; ++i) {
      layers.emplace_back((s / "layers" / i).block(), c, true);
      for (auto& patch : patches) patch.add_layer();
    }
    exit.emplace((s / "final_layer").block(), c);
  }

  std::vector<Controlled> controlled(const Inputs& inputs, std::int64_t batch,
                                     const nn::RopeTable& rope, const Tensor& level) const {
    std::vector<Controlled> result;
    for (std::size_t i = 0; i < patches.size(); ++i) {
      auto index = static_cast<int>(i);
      if (const auto& picture = inputs[patch_input(index)]; picture.defined())
        result.push_back(
            {patches[i], patches[i].start(picture, batch, rope, level,
                                          inputs.number(patch_strength_input(index), 1.0))});
    }
    return result;
  }

  Embedders embed;
  std::vector<Layer> context_refiner, noise_refiner, layers;
  std::vector<ControlPatch> patches;
  std::optional<FinalLayer> exit;
};

NextDit::NextDit(const NextDitConfig& config)
    : config_(config),
      inputs_(next_dit_inputs(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

NextDit::~NextDit() = default;

Tensor NextDit::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs);
  const auto& latent = inputs["x"];
  const Lengths lengths(latent, inputs["context"], config_);
  auto embedded = parts_->embed.forward(latent, inputs["timestep"], inputs["context"], lengths);
  auto level = config_.z_image ? embedded.level : embedded.activated;
  auto rope =
      nn::rope_table(positions(lengths, latent.device()), config_.axes(), config_.rope_theta());
  auto of_text = part_of(rope, 0, lengths.text);
  for (const auto& layer : parts_->context_refiner)
    embedded.text = layer.forward(embedded.text, of_text, {});
  auto of_image = part_of(rope, lengths.text, lengths.image);
  auto controlled = parts_->controlled(inputs, latent.size(0), of_image, level);
  for (auto& [patch, state] : controlled) state.image = embedded.image;
  for (std::size_t i = 0; i < parts_->noise_refiner.size(); ++i) {
    embedded.image = parts_->noise_refiner[i].forward(embedded.image, of_image, level);
    for (auto& [patch, state] : controlled)
      patch.after_refiner(static_cast<std::int64_t>(i), state, embedded.image, of_image, level);
  }
  auto x = at::cat({embedded.text, embedded.image}, 1);
  for (auto& [patch, state] : controlled) state.image = embedded.image;
  embedded.text = embedded.image = Tensor();
  for (std::size_t i = 0; i < parts_->layers.size(); ++i) {
    if (!patches.skipped.count(fmt::format("layers.{}", i)))
      x = parts_->layers[i].forward(x, rope, level);
    for (auto& [patch, state] : controlled)
      patch.after_layer(static_cast<std::int64_t>(i), state,
                        x.narrow(1, lengths.text, lengths.image), of_image, level);
  }
  return parts_->exit->forward(x, embedded.activated, latent, lengths);
}

}  // namespace distorch::models::z_image
