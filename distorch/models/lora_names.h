#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/weights/manifest.h"

namespace distorch::models {

/// How LoRA files spell a model's weights: base name
/// ("lora_unet_down_blocks_0_attentions_0_...to_q") -> declared weight. For weights::match_lora,
/// which adds the endings (".lora_up.weight", ".lora_A.weight", ".alpha", ...).
using LoraNames = std::map<std::string, std::string>;

/// "some.layer" of "some.layer.weight".
std::string lora_base(const std::string& weight);
/// "some_layer" of "some.layer".
std::string with_underscores(std::string name);

/// Every matrix and every other "...weight" behind each of the prefixes: with underscores where a
/// prefix ends with one ("lora_te_"), else as it is ("text_encoder.").
LoraNames prefixed_lora_names(const weights::Manifest& manifest,
                              const std::vector<std::string>& prefixes);

}  // namespace distorch::models
