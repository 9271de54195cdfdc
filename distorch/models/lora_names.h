#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/weights/lora.h"
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// How LoRA files spell a model's weights: base name
/// ("lora_unet_down_blocks_0_attentions_0_...to_q") -> declared weight, or some rows of it. For weights::match_lora,
/// which adds the endings (".lora_up.weight", ".lora_A.weight", ".alpha", ...).
using LoraNames = weights::LoraTargets;

/// "some.layer" of "some.layer.weight".
std::string lora_base(const std::string& weight);
/// "some_layer" of "some.layer".
std::string with_underscores(std::string name);

/// The weight of a layer where the model declares it; of "....q", "....k" or "....v" where the model
/// has the three as one matrix "....qkv", the rows that are theirs. Nothing where there is neither.
std::optional<weights::LoraTarget> layer_target(const std::string& layer,
                                                const std::set<std::string>& declared,
                                                std::int64_t q_rows, std::int64_t kv_rows);
/// Names of all declared weights.
std::set<std::string> declared_names(const weights::Manifest& manifest);

/// Every matrix and every other "...weight" behind each of the prefixes: with underscores where a
/// prefix ends with one ("lora_te_"), else as it is ("text_encoder."). Where the model has "....q",
/// "....k" and "....v", "....qkv" is the three.
LoraNames prefixed_lora_names(const weights::Manifest& manifest,
                              const std::vector<std::string>& prefixes);

}  // namespace distorch::models
