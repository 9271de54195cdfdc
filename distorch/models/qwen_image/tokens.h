#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/models/qwen_image/config.h"

/// Latents as tokens and where they stand. Source: ComfyUI comfy/ldm/qwen_image/model.py,
/// process_img.
namespace distorch::models::qwen_image {

/// Sizes of a latent in tokens.
struct Grid {
  std::int64_t frames = 1, rows = 1, columns = 1;
  std::int64_t tokens() const { return frames * rows * columns; }
};
/// Of a latent [B, C, T, h, w].
Grid grid_of(at::IntArrayRef latent);

/// latent [B, C, T, h, w] -> [B, T·rows·columns, C·4]; an odd side is filled up with its start.
at::Tensor to_tokens(const at::Tensor& latent);
/// The other way round, cut to h x w.
at::Tensor to_latent(const at::Tensor& tokens, at::IntArrayRef latent);

/// Positions [1, tokens, 3] (time, row, column) float32 of the picture that is made, the middle of
/// each frame at 0, and behind it those of the pictures it is made from.
at::Tensor image_positions(at::IntArrayRef latent,
                           const std::vector<std::vector<std::int64_t>>& references,
                           ReferenceMethod method, at::Device device);
/// Those of so many text tokens: beyond the picture on all axes.
at::Tensor text_positions(at::IntArrayRef latent, std::int64_t tokens, at::Device device);

}  // namespace distorch::models::qwen_image
