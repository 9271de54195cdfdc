#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "distorch/models/video_vae.h"

/// Whole clips through a video autoencoder, a group of frames at a time: on the device there is
/// never more than one group with what the layers remember, however long the clip. Where every frame
/// counts for all others (VaeShape::whole_clips) a clip is one group.
namespace distorch::models::vae {

/// Groups of a clip of so many latent frames or frames; what makes no whole group does not count.
std::int64_t decode_groups(const VaeShape& shape, std::int64_t latent_frames);
std::int64_t encode_groups(const VaeShape& shape, std::int64_t frames);

/// From this many groups on memory grows no more: the first two differ, the third is the first that
/// finds all there is to remember, and a fourth makes it keep as much.
inline constexpr std::int64_t kSteadyGroups = 4;

/// Decodes one clip, latent [1, C, T, h, w] on any device, on `device`, and hands over its pixels
/// [1, 3, t, H, W] in order, on that device. Interruptible between groups.
void each_decoded(const VaeNetwork& vae, const at::Tensor& latent, at::Device device,
                  const std::function<void(const at::Tensor& pixels)>& take);

/// The same for encoding: frames [1, 3, T, H, W], -1..1 -> latent frames [1, C, 1, h, w]; frames
/// that make no whole latent frame are left out.
void each_encoded(const VaeNetwork& vae, const at::Tensor& frames, at::Device device,
                  const std::function<void(const at::Tensor& latent)>& take);

/// latent [B, C, T, h, w] -> pixels [B, 3, T', H, W] float32 on the CPU.
at::Tensor decode_clips(const VaeNetwork& vae, const at::Tensor& latent, at::Device device);

/// Frames [B, 3, T, H, W], -1..1, on any device -> latents [B, C, T', h, w] float32 on the CPU.
at::Tensor encode_clips(const VaeNetwork& vae, const at::Tensor& frames, at::Device device);

}  // namespace distorch::models::vae
