#pragma once
#include <map>
#include <string>

#include "distorch/models/sd/unet_config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// How LoRA files spell a model's weights: base name
/// ("lora_unet_down_blocks_0_attentions_0_...to_q") -> declared weight. For weights::match_lora,
/// which adds the endings (".lora_up.weight", ".lora_A.weight", ".alpha", ...).
using LoraNames = std::map<std::string, std::string>;

/// UNets of Stable Diffusion: kohya names of original and diffusers trees ("lora_unet_..."),
/// LyCORIS ("lycoris_..."), diffusers and peft trees ("unet.down_blocks...", with and without
/// "processor."), plain ("diffusion_model...."). Source of the spellings: ComfyUI comfy/lora.py,
/// model_lora_keys_unet.
LoraNames unet_lora_names(const sd::UNetConfig& config, const weights::Manifest& manifest);

/// CLIP text encoders: "lora_te_text_model_...", "lora_te1_...", "text_encoder.text_model...." and
/// "text_encoders.clip_l.transformer.text_model....". Source: ComfyUI comfy/lora.py,
/// model_lora_keys_clip.
LoraNames text_lora_names(const weights::Manifest& manifest);

}  // namespace distorch::models
