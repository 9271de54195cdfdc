#pragma once
#include <vector>

#include "distorch/models/upscale/upscale.h"
#include "distorch/models/upscale/window_parts.h"

namespace distorch::models::upscale {

/// SwinIR: attention within windows of pixels, every second time shifted by half of one, in groups
/// with a convolution each. Names: those of its files. Source: spandrel architectures/SwinIR.
struct SwinIrConfig {
  Frame frame;  // its scale before `unshuffle` is taken off
  std::int64_t mlp_width = 360;
  std::vector<int> depths;          // by group
  std::vector<std::int64_t> heads;  // by group
  std::int64_t window = 8;          // pixels of a window's side
  std::int64_t unshuffle = 1;       // pixels of a side that become channels first
};

std::unique_ptr<UpscaleNetwork> make_swin_ir(const SwinIrConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_swin_ir(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
