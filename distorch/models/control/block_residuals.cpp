#include "distorch/models/control/block_residuals.h"

namespace distorch::models::control {

using at::Tensor;

Tensor BlockResidual::forward(const Tensor& tokens) const {
  return block_.run1({tokens}, [this](const weights::Tensors& in) { return matrix_(in[0]); });
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
