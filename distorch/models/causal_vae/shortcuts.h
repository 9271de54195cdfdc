#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/causal_vae/config.h"

/// What Wan 2.2's autoencoder does without weights: ways past a group of layers, and four pixels as
/// one. Frames are [T, C, h, w]. Source: ComfyUI comfy/ldm/wan/vae2_2.py, AvgDown3D, DupUp3D,
/// patchify, unpatchify.
namespace distorch::models::causal_vae {

/// x [T, in, h, w] -> [ceil(T / time), out, h / space, w / space]: means over neighbours and
/// channels. Frames that are missing to a multiple of `time` are zeros before the first.
at::Tensor averaged(const at::Tensor& x, const Group& group);

/// x [T, in, h, w] -> [T · time, out, h · space, w · space]: every number repeated. The first frame
/// of a clip stands for one.
at::Tensor repeated(const at::Tensor& x, const Group& group, bool first_chunk);

/// Pixels [T, C, H, W] -> [T, C · patch², H / patch, W / patch], a cell's columns before its rows.
at::Tensor to_patches(const at::Tensor& pixels, std::int64_t patch);
/// And back.
at::Tensor from_patches(const at::Tensor& patches, std::int64_t patch);

}  // namespace distorch::models::causal_vae
