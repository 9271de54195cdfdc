#pragma once
#include "distorch/models/lora_names.h"
#include "distorch/models/z_image/config.h"

namespace distorch::models::z_image {

/// How LoRA files spell a Next-DiT's weights: original names (with underscores as kohya's trainer
/// writes them), those of diffusers and ai-toolkit behind several prefixes, SimpleTuner's.
LoraNames next_dit_lora_names(const NextDitConfig& config, const weights::Manifest& manifest);

}  // namespace distorch::models::z_image
