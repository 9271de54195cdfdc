#pragma once
#include "distorch/models/lora_names.h"
#include "distorch/models/sd3/config.h"

namespace distorch::models::sd3 {

/// How LoRA files spell an MM-DiT's weights: original names (with underscores as kohya's trainer
/// writes them) and those of diffusers, PEFT, OneTrainer and SimpleTuner.
LoraNames mmdit_lora_names(const MmditConfig& config, const weights::Manifest& manifest);

}  // namespace distorch::models::sd3
