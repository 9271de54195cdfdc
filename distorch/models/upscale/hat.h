#pragma once
#include <vector>

#include "distorch/models/upscale/upscale.h"
#include "distorch/models/upscale/window_parts.h"

namespace distorch::models::upscale {

/// HAT: attention within windows beside a convolution with channel attention, and at the end of
/// each group attention to a wider surrounding of each window. Names: those of its files. Source:
/// spandrel architectures/HAT.
struct HatConfig {
  Frame frame;
  std::int64_t mlp_width = 360;          // of the blocks
  std::int64_t overlap_mlp_width = 360;  // of the groups' last ones
  std::int64_t squeezed = 60;            // channels within the convolution
  std::int64_t attention_width = 6;      // channels within the channel attention
  std::vector<int> depths;               // by group
  std::vector<std::int64_t> heads;       // by group
  std::int64_t window = 16;              // pixels of a window's side
  std::int64_t surrounding = 24;         // pixels of the wider one's
  bool qkv_bias = true;
};

std::unique_ptr<UpscaleNetwork> make_hat(const HatConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_hat(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
