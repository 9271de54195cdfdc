#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace distorch::tokenizers {

/// What tells one byte-level vocabulary from another.
struct RankBpeRules {
  std::string name;                  // "Qwen", for messages
  int tokens = 0;                    // by rank; the special ones follow them
  std::vector<std::string> special;  // all begin with '<'
  int most_digits = 1;               // of a number that are one word
  bool composed = false;             // texts are composed first (NFC)
  bool whole_words = false;          // a word that is a token is not merged anew
};

/// Byte-level byte-pair encoding with a vocabulary in the order of its merges: a token is the merge
/// of the two that tokens before it leave of its bytes. Source: behaviour of `tiktoken` and of
/// byte-level tokenizers in `transformers`.
class RankBpe {
 public:
  /// One token a line, base64 and rank. `where` names the text. Error(Format).
  static std::shared_ptr<const RankBpe> parse(std::string_view text, const std::string& where,
                                              RankBpeRules rules);
  /// The same from the tokens' bytes by rank; further ones are left out.
  static std::shared_ptr<const RankBpe> from_tokens(const std::vector<std::string>& tokens,
                                                    const std::string& where, RankBpeRules rules);

  /// Token numbers of a text; any bytes are accepted. Special tokens written in the text become
  /// those tokens.
  std::vector<int> encode(std::string_view utf8) const;

  /// The bytes a token stands for; "" for numbers out of range.
  std::string text_of(int token) const;

 private:
  explicit RankBpe(RankBpeRules rules) : rules_(std::move(rules)) {}
  void add(std::string bytes);
  void finish(const std::string& where);
  void encode_word(std::string_view word, std::vector<int>& ids) const;
  void encode_plain(std::string_view text, std::vector<int>& ids) const;

  RankBpeRules rules_;
  std::array<int, 256> byte_token_{};
  std::unordered_map<std::uint64_t, int>
      merges_;                                  // (left token << 32 | right token) -> merged token
  std::unordered_map<std::string, int> whole_;  // by bytes, where words that are tokens stay
  std::vector<std::string> text_;               // by token, raw bytes
};

}  // namespace distorch::tokenizers
