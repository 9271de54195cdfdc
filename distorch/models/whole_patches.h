#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::models {

/// `latent` [B, C, (T,) h, w] filled up at its right and lower edge to whole patches with what lies at
/// the other edges, as transformers that see patches as tokens take it.
at::Tensor whole_patches(const at::Tensor& latent, std::int64_t patch);

/// latent [B, C, T, h, w] -> [B, T · rows · columns, C · patch · patch]: patches of each frame as
/// tokens, row by row, after whole_patches().
at::Tensor patches_as_tokens(const at::Tensor& latent, std::int64_t patch);

}  // namespace distorch::models
