#pragma once
#include "distorch/models/upscale/upscale.h"

namespace distorch::models::upscale {

/// RealESRGAN compact: convolutions with learned slopes between them, all at the picture's size, whose
/// last one is spread to pixels and added to the picture enlarged by nearest neighbours. Names:
/// body.N, slopes between convolutions. Source: spandrel architectures/Compact.
struct CompactConfig {
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::int64_t width = 64;
  int convolutions = 16;  // between the first and the last
  std::int64_t scale = 4;
};

std::unique_ptr<UpscaleNetwork> make_compact(const CompactConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_compact(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
