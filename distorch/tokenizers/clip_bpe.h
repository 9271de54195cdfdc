#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace distorch::tokenizers {

/// CLIP's byte-pair encoding: 49408 tokens, of which 0..511 are bytes (inside and at the end of a
/// word), then the merges. Source: Radford et al. 2021 (CLIP); vocabulary file
/// bpe_simple_vocab_16e6.txt.gz as published with it.
class ClipBpe {
 public:
  static constexpr int start_token = 49406;
  static constexpr int end_token = 49407;

  /// Reads the gzip-compressed list of merges (about 20 ms). Error(MissingFile) that says how to
  /// get it, Error(Format).
  static std::shared_ptr<const ClipBpe> load(const std::filesystem::path& vocabulary);

  /// Token numbers of a text, without start and end; any bytes are accepted. "<|startoftext|>" and
  /// "<|endoftext|>" in the text become those tokens.
  std::vector<int> encode(std::string_view utf8) const;

  /// The text a token stands for, a space at the end of a word; for logs. "" for numbers out of
  /// range.
  std::string text_of(int token) const;

 private:
  ClipBpe() = default;
  void encode_word(std::string_view word, std::vector<int>& ids) const;
  void encode_plain(std::string_view text, std::vector<int>& ids) const;

  std::array<int, 256> byte_token_{};  // a byte inside a word; + 256 at the end of one
  std::unordered_map<std::uint64_t, int>
      merges_;                     // (left token << 32 | right token) -> merged token
  std::vector<std::string> text_;  // by token, raw bytes
};

}  // namespace distorch::tokenizers
