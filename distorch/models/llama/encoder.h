#pragma once
#include <optional>
#include <string>
#include <vector>

#include "distorch/models/text_encoder.h"

namespace distorch::models::llama {

/// How a model family uses Llama 3.
struct EncoderUse {
  /// Stands around the text, which goes where it has "{}".
  std::string frame;
  /// As in CLIPSetLastLayer, which overrules it: the output of the layer of that number from the
  /// end, not normed.
  int layer = -3;
  /// In place of both: the output of so many layers before the last, normed where it is the last or
  /// `normed` says so.
  std::optional<std::int64_t> layers_left_out;
  bool normed = false;
};

/// Llama 3 8B, or the language model of LLaVA, as a part of a recipe, called `name`. Its part is one
/// of qwen::TextKind::Llama3_8B. It gives the states of the user's own words, and before them those
/// of pictures that its prompt shows it (Prompt::seen). Source: ComfyUI
/// comfy/text_encoders/hunyuan_video.py.
TextPart text_part_of(std::string name, const weights::Checkpoint& part, const EncoderUse& use);

/// One place of a prompt as it is tokenized: a token, or a picture of so many states.
struct Item {
  std::int64_t id = 0;
  std::int64_t places = 1;
  bool picture = false;
};

/// Which places somebody gets: pictures in front of the user's words, of them one in `every`, then
/// the words from behind the header of their turn up to its end. Of a text without such a turn all.
std::vector<Places> kept_of(const std::vector<Item>& items, std::int64_t every);

}  // namespace distorch::models::llama
