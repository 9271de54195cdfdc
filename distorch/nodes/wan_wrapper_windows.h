#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/nodes/wan_wrapper.h"

/// A long video in windows of latent frames. Source: ComfyUI-WanVideoWrapper,
/// context_windows/context.py, after AnimateDiff-Evolved.
namespace distorch::nodes::wan_wrapper {

using Window = std::vector<std::int64_t>;  // latent frames

/// A ContextChoice in latent frames.
struct WindowSizes {
  explicit WindowSizes(const ContextChoice& choice);
  std::int64_t frames, stride, overlap;
};

/// The windows of one step; all frames in one where they fit.
std::vector<Window> windows_of(const ContextChoice& choice, std::int64_t step, std::int64_t frames);

/// How much a window's frames count, [frames of the window] float32: less where another overlaps.
at::Tensor window_weights(const ContextChoice& choice, const Window& window, std::int64_t frames);

/// Noise [C, T, h, w] whose later frames are earlier ones in another order, so that windows begin
/// alike; in place. Source: FreeNoise (arXiv:2310.15169).
void repeat_noise(const at::Tensor& noise, const WindowSizes& sizes, at::Generator& generator);

}  // namespace distorch::nodes::wan_wrapper
