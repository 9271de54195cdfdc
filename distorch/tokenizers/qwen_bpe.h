#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/tokenizers/rank_bpe.h"

namespace distorch::tokenizers {

/// Byte-level byte-pair encoding of the Qwen models (Qwen2, Qwen2.5, Qwen3): 151643 tokens by rank,
/// then special ones like "<|im_start|>". Source: behaviour of Qwen2Tokenizer in `transformers`;
/// vocabulary file qwen.tiktoken as published with the models.
class QwenBpe {
 public:
  static constexpr int padding_token = 151643;  // <|endoftext|>
  static constexpr int start_token = 151644;    // <|im_start|>
  static constexpr int end_token = 151645;      // <|im_end|>
  static constexpr int image_token = 151655;    // <|image_pad|>

  /// Reads qwen.tiktoken in `folder`: one token a line, base64 and rank. Error(MissingFile) that
  /// says how to get it, Error(Format).
  static std::shared_ptr<const QwenBpe> load(const std::filesystem::path& folder);
  /// The same from a file's text; `where` names it.
  static std::shared_ptr<const QwenBpe> parse(std::string_view text, const std::string& where);

  /// Token numbers of a text (composed first, NFC); any bytes are accepted. Special tokens written
  /// in the text become those tokens.
  std::vector<int> encode(std::string_view utf8) const { return bpe_->encode(utf8); }

  /// The bytes a token stands for; "" for numbers out of range.
  std::string text_of(int token) const { return bpe_->text_of(token); }

 private:
  explicit QwenBpe(std::shared_ptr<const RankBpe> bpe) : bpe_(std::move(bpe)) {}

  std::shared_ptr<const RankBpe> bpe_;
};

}  // namespace distorch::tokenizers
