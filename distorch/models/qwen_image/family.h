#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::qwen_image {

/// Qwen-Image, Qwen-Image-Edit and their later editions (2509, 2511, 2512, Layered). Told by the
/// text's norm and a patch of 16 channels. Source: ComfyUI comfy/supported_models.py, QwenImage.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::qwen_image
