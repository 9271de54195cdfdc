#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::models {

/// Error(Shape) where latents [B, C, ...] are not those of an autoencoder of so many channels.
void check_latent(const at::Tensor& latent, std::int64_t channels);
/// The same of clips [B, C, T, h, w].
void check_clip_latent(const at::Tensor& latent, std::int64_t channels);
/// Error(Shape) where pixels are no clips [B, channels, T, H, W] whose sides are multiples of `cell`.
void check_clip_pixels(const at::Tensor& pixels, std::int64_t channels, std::int64_t cell);

}  // namespace distorch::models
