#pragma once
#include <vector>

#include "distorch/models/upscale/upscale.h"
#include "distorch/models/upscale/window_parts.h"

namespace distorch::models::upscale {

/// DAT: blocks that attend within long windows, half of the channels in upright ones and half in
/// lying ones, by turns with blocks whose channels attend to each other, each beside a convolution.
/// Names: those of its files. Source: spandrel architectures/DAT.
struct DatConfig {
  Frame frame;
  std::int64_t inner = 720;         // channels of the gated layers
  std::int64_t position_width = 5;  // of the layers that make biases of distances
  std::vector<int> depths;          // by group
  std::vector<std::int64_t> heads;  // by group
  Sides window = {8, 32};           // of the first half; the other half's is turned
  bool qkv_bias = true;
};

std::unique_ptr<UpscaleNetwork> make_dat(const DatConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_dat(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
