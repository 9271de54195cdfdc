#pragma once
#include <string_view>
#include <vector>

namespace distorch::tokenizers {

/// ByT5's vocabulary: a token for every byte of UTF-8, and a few for itself.
struct ByteTokens {
  static constexpr int padding_token = 0;
  static constexpr int end_token = 1;
  static constexpr int unknown_token = 2;
  static constexpr int first_byte = 3;
  static constexpr int first_extra = 259;  // "<extra_id_0>"
  static constexpr int extras = 125;
};

/// The tokens of a text without the end: its bytes, and where it spells "<pad>", "</s>", "<unk>" or
/// "<extra_id_N>" that token. An end that stands last is the end that the caller adds, and is left
/// out. Source: transformers ByT5Tokenizer.
std::vector<int> byte_tokens(std::string_view text);

}  // namespace distorch::tokenizers
