#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::nodes {

/// Canny's edges of an IMAGE [B, H, W, 3 or 4] (alpha does not count) or [B, H, W, 1]: 1 on an edge,
/// else 0, [B, H, W]. The thresholds are in units of Sobel's magnitude (a step from black to white
/// across a blurred picture is about 2.6): a pixel above `high` starts an edge, those above `low`
/// that touch one continue it. Source: kornia.filters.canny.
at::Tensor canny_edges(const at::Tensor& image, double low, double high);

}  // namespace distorch::nodes
