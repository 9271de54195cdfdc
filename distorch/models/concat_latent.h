#pragma once
#include <ATen/core/Tensor.h>

#include <array>

#include "distorch/models/family.h"

/// Pictures that a network gets as further channels beside the noisy latent.
namespace distorch::models {

/// x [B, C, h, w] in the size and batch of noise [B', C', h', w']: cut to its aspect around the
/// middle, resized bilinearly, items spread or thinned. Source: ComfyUI comfy/utils.py,
/// common_upscale and resize_to_batch_size.
at::Tensor fit_to_noise(const at::Tensor& x, const at::Tensor& noise);
/// x [B, C, h, w] of any h and w in that size, as above, batch and channels as they are.
at::Tensor fit_size(const at::Tensor& x, std::int64_t height, std::int64_t width);
/// In a batch of `size`: again from the first item where there are too few. Undefined stays so.
/// Source: ComfyUI comfy/utils.py, repeat_to_batch_size.
at::Tensor repeat_batch(const at::Tensor& tensor, std::int64_t size);
/// The batch spread or thinned to `size` items.
at::Tensor fit_batch(const at::Tensor& tensor, std::int64_t size);

/// A tensor of a conditioning on the noise's device in float32; undefined where it has none.
at::Tensor tensor_of(const sampling::ConditioningItem& item, const char* name,
                     const at::Tensor& noise);

/// Inpainting: mask (1 = repaint) and the latent to keep around it, [B, 1 + C, h, w]. From
/// "concat_mask" and "concat_latent_image" of the conditioning, else from the latent and its noise
/// mask; without any mask all is repainted, and the latent is `blank` (by channel: a gray picture).
/// Source: ComfyUI comfy/model_base.py, BaseModel.concat_cond.
at::Tensor inpaint_concat(const sampling::ConditioningItem& item,
                          const sampling::EncodeContext& context, const LatentFormat& format,
                          const std::array<double, 4>& blank);

/// Editing by instruction: the picture to edit [B, C, h, w], in the VAE's scale; zeros where there
/// is none.
at::Tensor edit_concat(const sampling::ConditioningItem& item,
                       const sampling::EncodeContext& context);

}  // namespace distorch::models
