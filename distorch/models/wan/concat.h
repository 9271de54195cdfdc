#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/family.h"

namespace distorch::models::wan {

/// What a model that has `channels` channels beside the latent gets there, [B, channels, T, h, w]:
/// the conditioning's "concat_latent_image" in the network's scale and, where four channels are left
/// for it, a mask before it (1 = given); zeros where nothing is given. Source: ComfyUI
/// comfy/model_base.py, WAN21.concat_cond.
at::Tensor concat_of(const sampling::ConditioningItem& item, const sampling::EncodeContext& context,
                     const LatentFormat& format, std::int64_t channels, bool image_to_video);

}  // namespace distorch::models::wan
