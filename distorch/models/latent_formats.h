#pragma once
#include "distorch/models/family.h"

/// Latent formats that more than one place needs. Values as published with the models; source of the
/// previews' factors: ComfyUI comfy/latent_formats.py.
namespace distorch::models {

/// Of the VAE that SD 1.x and 2.x share.
LatentFormat sd_latent();
LatentFormat sdxl_latent();
/// Playground 2.5, which has SDXL's VAE but its own scale by channel.
LatentFormat playground_latent();
/// Of SD3's VAE, 16 channels.
LatentFormat sd3_latent();
/// Of FLUX.1's VAE, 16 channels.
LatentFormat flux_latent();
/// The 32 channels of FLUX.2's VAE, 2x2 cells of it as one.
LatentFormat flux2_latent();

/// Wan 2.1 and Qwen-Image: 16 channels with frames.
LatentFormat wan21_latent();

/// Wan 2.2's own autoencoder: 48 channels with frames, 16 pixels a cell.
LatentFormat wan22_latent();

/// HunyuanVideo: 16 channels with frames.
LatentFormat hunyuan_video_latent();
/// HunyuanVideo 1.5: 32 channels with frames, 16 pixels a cell.
LatentFormat hunyuan_video15_latent();

/// LTX-Video: 128 channels with frames, 32 pixels a cell.
LatentFormat ltxv_latent();

}  // namespace distorch::models
