#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace distorch::tokenizers {

/// Byte-level byte-pair encoding as GPT-2 and BART have it, from a model folder's own files, and the
/// way back from numbers to a text. Source: behaviour of BartTokenizerFast in `transformers`.
class ByteBpe {
 public:
  /// Reads tokenizer.json in `folder`, or vocab.json and merges.txt where that is not there.
  /// `more`: special tokens that are added behind those of the files, unless they are known.
  /// Error(MissingFile) naming what to put where, Error(Format) naming the file.
  static std::shared_ptr<const ByteBpe> load(const std::filesystem::path& folder,
                                             const std::vector<std::string>& more);

  /// Numbers of a text without a start and an end. Special tokens written in it become those tokens.
  std::vector<std::int64_t> encode(std::string_view utf8) const;
  /// The text of some numbers, special tokens as they are written; bytes that are no UTF-8 become
  /// U+FFFD, numbers out of range nothing.
  std::string decode(const std::vector<std::int64_t>& ids) const;

  std::size_t size() const { return texts_.size(); }
  /// The number of a special token; -1 where there is none of that name.
  std::int64_t special(std::string_view token) const;

 private:
  class Reader;
  ByteBpe() = default;
  void encode_plain(std::string_view text, std::vector<std::int64_t>& ids) const;

  struct Special {
    std::string text;
    std::int64_t id = 0;
    bool takes_blanks = false;  // those in front of it belong to it
  };
  const Special* special_at(std::string_view text) const;

  // Inside, tokens are numbered by the order of their merges, bytes first.
  std::unordered_map<std::uint64_t, int> merges_;
  std::vector<std::int64_t> id_of_;  // by inner number
  std::vector<std::string> texts_;   // by id: bytes
  std::vector<Special> specials_;    // longest first
};

}  // namespace distorch::tokenizers
