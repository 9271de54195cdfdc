#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::tokenizers {

/// The table of replacements that SentencePiece models carry ("precompiled_charsmap"): a trie over
/// bytes (a double array, 32 bits a node) and the texts that its leaves stand for.
class CharsMap {
 public:
  CharsMap() = default;  // replaces nothing
  /// Throws Error(Format) where the table's own sizes do not fit its bytes; `where` names the file.
  CharsMap(std::string_view bytes, const std::string& where);

  /// Replaces clusters of characters (as they are seen as one) shorter than 6 bytes whole, where
  /// the table knows how they begin, all others character by character. Source: behaviour of the
  /// library `tokenizers`, normalizer "Precompiled".
  std::string normalized(std::string_view utf8) const;

 private:
  std::optional<std::string_view> find(std::string_view text) const;

  std::vector<std::uint32_t> nodes_;
  std::string texts_;  // each ends with a zero byte
};

}  // namespace distorch::tokenizers
