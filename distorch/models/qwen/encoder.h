#pragma once
#include <optional>
#include <string>
#include <vector>

#include "distorch/models/qwen/config.h"
#include "distorch/models/text_encoder.h"

namespace distorch::models::qwen {

/// How a model family uses one of these encoders.
struct EncoderUse {
  /// Stands around the text, which goes where it has "{}".
  std::string frame;
  /// The same for a prompt with pictures; empty: as without.
  std::string frame_with_pictures;
  /// A text that begins with "<|im_start|>" brings its own frame.
  bool own_frames = false;
  bool never_empty = false;  // an empty text is a blank
  /// The states up to the user's own words are left out: those of the frame before them.
  bool drop_instructions = false;
  bool embeddings = true;  // textual inversions
  int shortest = 1;        // tokens that a prompt is filled up to
  /// The states that are taken: those before the layers of these numbers, side by side; empty: one,
  /// of `layer`.
  std::vector<std::int64_t> side_by_side;
  /// As in CLIPSetLastLayer, which overrules it: -2 the last layer but one; unset the last, normed.
  std::optional<int> layer;
};

/// A Qwen text encoder as a part of a recipe, called `name`; it sees pictures where its file has a
/// vision tower. Source: ComfyUI comfy/text_encoders/{qwen_image,z_image,flux}.py.
TextPart text_part_of(std::string name, const weights::Checkpoint& part, const EncoderUse& use);

}  // namespace distorch::models::qwen
