#include "distorch/models/control/block_residuals.h"

namespace distorch::models::control {

using at::Tensor;

Tensor BlockResidual::forward(const Tensor& tokens) const {
  return block_.run1({tokens}, [this](const weights::Tensors& in) { return matrix_(in[0]); });
}

InputSpecs inputs_of(std::int64_t latent_channels, std::string level, InputSpec conditioning,
                     std::int64_t hint_channels) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), cells = Extent::cells();
  return {{.name = "x",
           .meaning = "latent",
           .kind = Kind::NoiseShape,
           .shape = {batch, Extent::number(latent_channels), cells},
           .source = Source::Sampler},
          {.name = "timestep",
           .meaning = std::move(level),
           .shape = {batch},
           .source = Source::Sampler},
          std::move(conditioning),
          {.name = "hint",
           .meaning = "picture that steers",
           .kind = Kind::NoiseShape,
           .shape = {batch, Extent::number(hint_channels), cells},
           .source = Source::Control}};
}

std::vector<Place> block_places(std::int64_t count) {
  std::vector<Place> places;
  for (std::int64_t i = 0; i < count; ++i)
    places.push_back({Place::At::Block, static_cast<int>(i)});
  return places;
}

Inputs spread_over_blocks(const Tensor& packed, const std::vector<Place>& places,
                          std::int64_t repeats) {
  Inputs inputs;
  for (const auto& place : places)
    inputs.set(name_of(place), packed.select(0, place.block / repeats));
  return inputs;
}

}  // namespace distorch::models::control
