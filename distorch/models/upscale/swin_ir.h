#pragma once
#include <vector>

#include "distorch/models/upscale/upscale.h"

namespace distorch::models::upscale {

/// How SwinIR comes from features to pixels.
enum class SwinExit {
  Shuffle,  // "pixelshuffle": doublings by convolutions to channels that become pixels
  Direct,   // "pixelshuffledirect": the same in one step
  Nearest,  // "nearest+conv": doublings by nearest neighbours
  Repair,   // none: the picture keeps its size
};

/// SwinIR: attention within windows of pixels, every second time shifted by half of one, in groups
/// with a convolution each. Names: those of its files. Source: spandrel architectures/SwinIR.
struct SwinIrConfig {
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::int64_t width = 180;
  std::int64_t mlp_width = 360;
  std::vector<int> depths;          // by group
  std::vector<std::int64_t> heads;  // by group
  std::int64_t window = 8;          // pixels of a window's side
  SwinExit exit = SwinExit::Shuffle;
  std::int64_t features = 64;    // of the exit
  std::int64_t scale = 4;        // of the network, before `unshuffle` is taken off
  std::int64_t unshuffle = 1;    // pixels of a side that become channels first
  bool narrow_residual = false;  // "3conv": three convolutions in the place of one
};

std::unique_ptr<UpscaleNetwork> make_swin_ir(const SwinIrConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_swin_ir(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
