#pragma once
#include "distorch/models/flux/config.h"
#include "distorch/models/lora_names.h"

namespace distorch::models::flux {

/// How LoRA files spell a FLUX model's weights: original names (kohya's with underscores,
/// "diffusion_model.", BFL's control LoRAs without a prefix), XLabs' processors, and diffusers' names
/// as PEFT, ai-toolkit, SimpleTuner ("transformer.", "lycoris_") and OneTrainer
/// ("lora_transformer_") write them, which are rows of fused weights. Source of the spellings:
/// ComfyUI comfy/lora.py, model_lora_keys_unet, and comfy/lora_convert.py.
LoraNames flux_lora_names(const Config& config, const weights::Manifest& manifest);

}  // namespace distorch::models::flux
