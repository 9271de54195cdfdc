#pragma once
#include <memory>

#include "distorch/models/t5/config.h"
#include "distorch/models/text_encoder.h"

namespace distorch::models::t5 {

/// A T5 encoder as a part of a recipe, called `name`; prompts are filled up to `shortest` tokens,
/// which all count. Weights move each place's state away from that of the empty prompt. Source:
/// ComfyUI comfy/text_encoders/sd3_clip.py, T5XXLModel, and flux.py.
TextPart text_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                      std::vector<std::string> lora_prefixes);

/// The same where tokens behind the end do not count: the others do not see them, and the mask says
/// which they are. Source: ComfyUI comfy/text_encoders/genmo.py, T5XXLModel.
TextPart masked_text_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                             std::vector<std::string> lora_prefixes);

/// UMT5 as a part of a recipe: its file brings its SentencePiece model, which is run as it is;
/// prompts are filled up to `shortest` tokens, of which those behind the end do not count and have
/// states of 0. Source: ComfyUI comfy/text_encoders/wan.py, UMT5XXlModel.
TextPart umt5_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                      std::vector<std::string> lora_prefixes);

/// ByT5 as a part of a recipe: it reads bytes, and of a prompt only the words that it quotes
/// (glyphs.h); one that quotes none leaves it silent. Tokens behind the end, which the empty prompt
/// of weights has, do not count and have states of 0. Source: ComfyUI
/// comfy/text_encoders/hunyuan_image.py, ByT5SmallModel.
TextPart byt5_part_of(std::string name, const weights::Checkpoint& part,
                      std::vector<std::string> lora_prefixes);

}  // namespace distorch::models::t5
