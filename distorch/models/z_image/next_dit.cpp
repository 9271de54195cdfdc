#include "distorch/models/z_image/next_dit.h"

#include <fmt/format.h>

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
  using Source = InputSpec::Source;
  const auto batch = Extent::batch();
  return {
      {.name = "x",
       .meaning = "latent",
       .kind = InputSpec::Kind::NoiseShape,
       .shape = {batch, Extent::number(c.channels), Extent::cells()},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), Extent::number(c.text_width)}}};
}

std::vector<Layer> make_layers(const Scope& s, const NextDitConfig& c, std::int64_t count,
                               bool modulated) {
  std::vector<Layer> layers;
  layers.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) layers.emplace_back((s / i).block(), c, modulated);
  return layers;
}

}  // namespace

struct NextDit::Parts {
  Parts(const Scope& s, const NextDitConfig& c)
      : embed(s.block("embed"), c),
        context_refiner(make_layers(s / "context_refiner", c, c.context_refiners, false)),
        noise_refiner(make_layers(s / "noise_refiner", c, c.noise_refiners, true)),
        layers(make_layers(s / "layers", c, c.layers, true)),
        exit((s / "final_layer").block(), c) {}

  Embedders embed;
  std::vector<Layer> context_refiner, noise_refiner, layers;
  FinalLayer exit;
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
  for (const auto& layer : parts_->noise_refiner)
    embedded.image = layer.forward(embedded.image, of_image, level);
  auto x = at::cat({embedded.text, embedded.image}, 1);
  embedded.text = embedded.image = Tensor();
  for (std::size_t i = 0; i < parts_->layers.size(); ++i)
    if (!patches.skipped.count(fmt::format("layers.{}", i)))
      x = parts_->layers[i].forward(x, rope, level);
  return parts_->exit.forward(x, embedded.activated, latent, lengths);
}

}  // namespace distorch::models::z_image
