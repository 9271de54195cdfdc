#pragma once
#include "distorch/models/upscale/upscale.h"

namespace distorch::models::upscale {

/// ESRGAN, BSRGAN, RealESRGAN: residual blocks of densely connected convolutions, then doublings by
/// nearest neighbours. Names: those of RealESRGAN (conv_first, body.N.rdbK.convM, conv_body,
/// conv_upI, conv_hr, conv_last); the older ones (model.0, RRDB_trunk.N.RDBK, ...) are renamed.
/// Source: spandrel architectures/ESRGAN.
struct RrdbConfig {
  std::int64_t in_channels = 3;  // of the network, after unshuffling
  std::int64_t out_channels = 3;
  std::int64_t width = 64;
  std::int64_t growth = 32;
  int blocks = 23;
  int doublings = 2;
  std::int64_t unshuffle = 1;  // pixels of a side that become channels first
  bool plus = false;           // ESRGAN+: two more paths in each dense block
};

std::unique_ptr<UpscaleNetwork> make_rrdb(const RrdbConfig& config);

/// Without `make` where the file holds another kind.
UpscalePart find_rrdb(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
