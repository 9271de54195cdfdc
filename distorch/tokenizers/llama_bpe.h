#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/tokenizers/rank_bpe.h"

namespace distorch::tokenizers {

/// Byte-level byte-pair encoding of Llama 3, with the special tokens of its LLaVA: 128000 tokens by
/// rank, then "<|begin_of_text|>" and others. Source: behaviour of LlamaTokenizerFast in
/// `transformers` with the tokenizer of llava-llama-3-8b; vocabulary file tokenizer.model as
/// published with Llama 3.
class LlamaBpe {
 public:
  static constexpr int start_token = 128000;        // <|begin_of_text|>
  static constexpr int header_token = 128006;       // <|start_header_id|>
  static constexpr int header_end_token = 128007;   // <|end_header_id|>
  static constexpr int end_of_turn_token = 128009;  // <|eot_id|>
  static constexpr int image_token = 128257;        // <image>
  static constexpr int padding_token = 128258;      // <pad>
  static constexpr int user_token = 882;            // "user"
  static constexpr int empty_line_token = 271;      // two line ends

  /// Reads tokenizer.model (one token a line, base64 and rank) or tokenizer.json in `folder`.
  /// Error(MissingFile) that says how to get them, Error(Format).
  static std::shared_ptr<const LlamaBpe> load(const std::filesystem::path& folder);
  /// The same from a file's text; `where` names it.
  static std::shared_ptr<const LlamaBpe> parse(std::string_view text, const std::string& where);
  static std::shared_ptr<const LlamaBpe> parse_json(std::string_view text,
                                                    const std::string& where);
  /// From tokens by rank as GGUF files spell them (bytes_of_spelling).
  static std::shared_ptr<const LlamaBpe> from_spellings(const std::vector<std::string>& tokens,
                                                        const std::string& where);

  /// Token numbers of a text; any bytes are accepted. Special tokens written in the text become
  /// those tokens.
  std::vector<int> encode(std::string_view utf8) const { return bpe_->encode(utf8); }

 private:
  explicit LlamaBpe(std::shared_ptr<const RankBpe> bpe) : bpe_(std::move(bpe)) {}

  std::shared_ptr<const RankBpe> bpe_;
};

}  // namespace distorch::tokenizers
