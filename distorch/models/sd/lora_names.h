#pragma once
#include "distorch/models/lora_names.h"
#include "distorch/models/sd/unet_config.h"

namespace distorch::models::sd {

/// UNets of Stable Diffusion: kohya names of original and diffusers trees ("lora_unet_..."),
/// LyCORIS ("lycoris_..."), diffusers and peft trees ("unet.down_blocks...", with and without
/// "processor."), plain ("diffusion_model...."). Source of the spellings: ComfyUI comfy/lora.py,
/// model_lora_keys_unet.
LoraNames unet_lora_names(const UNetConfig& config, const weights::Manifest& manifest);

}  // namespace distorch::models::sd
