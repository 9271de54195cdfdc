#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/nn/qkv.h"

/// Ways of attending that the nodes of ComfyUI-HunyuanVideoWrapper ask for. Heads are [B, L, H, Dh],
/// text first, then the video.
namespace distorch::models::hunyuan_video {

/// What the video's tokens are, among those that attend together.
struct VideoPlaces {
  std::int64_t text = 0;    // tokens before the video
  std::int64_t frames = 0;  // of the latent
  std::int64_t given = 0;   // tokens of a frame that is given, at the end instead of the start
};

/// By how much the result of attention is multiplied, one number, at least 1: the attention that
/// frames pay to others than themselves, over the whole batch, times their number and a weight.
/// Tokens are grouped as they lie, `frames` neighbours at a time, as the wrapper does. 1 where the
/// tokens make no whole groups. Source: Enhance-A-Video (arXiv:2502.07508) as in
/// ComfyUI-HunyuanVideoWrapper, enhance_a_video/enhance.py.
at::Tensor enhancement(const nn::Qkv& heads, const VideoPlaces& places, double weight);

/// Attention in which each token of the video sees itself and the text alone, and the text sees
/// all, [B, L, H·Dh].
at::Tensor attend_apart(const nn::Qkv& heads, const VideoPlaces& places);

}  // namespace distorch::models::hunyuan_video
