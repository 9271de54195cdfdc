#pragma once
#include "distorch/graph/call.h"
#include "distorch/nodes/clip_vision.h"

namespace distorch::nodes {

/// What the encoder says about pictures [B, H, W, C], on the CPU; with `crop` cut to a square
/// first. Error(Usage) where the node's encoder is missing.
VisionOutput look_at(graph::Call& call, const ClipVision& vision, const at::Tensor& image,
                     bool crop);
/// The same of pixels [B, 3, size, size] that are prepared as the encoder wants them; it is there.
VisionOutput look_at_pixels(graph::Call& call, const ClipVision& vision, const at::Tensor& pixels);

}  // namespace distorch::nodes
