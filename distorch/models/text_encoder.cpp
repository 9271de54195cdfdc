#include "distorch/models/text_encoder.h"

namespace distorch::models {

std::shared_ptr<const tokenizers::ClipBpe> Vocabularies::clip() {
  if (!clip_) clip_ = tokenizers::ClipBpe::load(folder_ / "bpe_simple_vocab_16e6.txt.gz");
  return clip_;
}

TextStates joined(const TextRecipe::Join& join, const std::vector<TextStates>& states) {
  return join ? join(states) : states.at(0);
}

}  // namespace distorch::models
