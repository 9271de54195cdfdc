#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/models/text_encoder.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// A kind of text encoder, told by its tensors. To add one: a folder with its network, a line in
/// encoder_kinds() and one in text_recipes() (text_recipes.cpp).
struct EncoderKind {
  const char* name;   // "clip_l", "t5xxl", ...: its place in whole checkpoints
  const char* title;  // "CLIP-L", for messages
  /// The tensors of an encoder of this kind under its names; empty where the file holds none.
  weights::Checkpoint (*find)(const weights::Checkpoint& file);
};
const std::vector<EncoderKind>& encoder_kinds();

/// Encoders by the name of their kind.
using FoundEncoders = std::map<std::string, weights::Checkpoint>;

/// What the encoders of a model are used as.
struct RecipeKind {
  const char* type;  // as loaders name it; "": whatever the type
  std::vector<std::string> encoders;
  bool all = true;  // false: at least one of them, the others may be absent
  TextRecipe (*make)(const FoundEncoders& found);
};
/// The list, in the order of asking.
const std::vector<RecipeKind>& text_recipes();

/// The text encoders of files on their own, in any order, as a loader's `type` asks for: "sdxl",
/// "sd3", "flux", "flux2", "qwen_image", "lumina2" (Z-Image), ... Error(Usage) naming the files, what
/// they hold and what would fit where they are others, Error(Format) where a file holds none.
TextRecipe text_recipe(const std::vector<weights::Checkpoint>& files, const std::string& type);
/// The same of the encoders that lie in a whole checkpoint below "text_encoders.NAME.transformer.";
/// empty where it has none.
TextRecipe checkpoint_recipe(const weights::Checkpoint& file, const std::string& type);

/// The text encoder of a file that holds nothing else; empty where it has none.
TextRecipe find_text(const weights::Checkpoint& file);
/// Its kind's title, for messages; "" where it has none.
std::string encoder_title(const weights::Checkpoint& file);

}  // namespace distorch::models
