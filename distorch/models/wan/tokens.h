#pragma once
#include <ATen/core/Tensor.h>

/// Latents of video as tokens and where they stand. Source: ComfyUI comfy/ldm/wan/model.py,
/// rope_encode and unpatchify.
namespace distorch::models::wan {

/// latent [B, C, T, h, w] -> [B, T · rows · columns, C · 4]; an odd side is filled up with its
/// start.
at::Tensor to_tokens(const at::Tensor& latent);

/// tokens [B, T · rows · columns, 4 · C], the channels of a cell side by side -> [B, C, T, h, w],
/// the sizes of `latent`.
at::Tensor to_latent(const at::Tensor& tokens, at::IntArrayRef latent);

/// Positions [1, frames · rows · columns, 3] (frame, row, column) float32 of a latent [B, C, T, h, w]
/// with `before` frames in front of it; the frames count from `first` on.
at::Tensor positions(at::IntArrayRef latent, std::int64_t before, at::Device device,
                     std::int64_t first = 0);

/// Positions of coarser tokens (frames, rows, columns) that lie evenly over the rows and columns of
/// a latent of these cells (height, width).
at::Tensor spread_positions(at::IntArrayRef tokens, at::IntArrayRef cells, std::int64_t first,
                            at::Device device);

}  // namespace distorch::models::wan
