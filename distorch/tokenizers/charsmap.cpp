#include "distorch/tokenizers/charsmap.h"

#include <utf8proc.h>

#include <cstring>

#include "distorch/base/error.h"
#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

constexpr std::size_t longest_whole_cluster = 5;  // bytes

bool has_leaf(std::uint32_t node) { return (node >> 8 & 1) != 0; }
std::uint32_t label(std::uint32_t node) { return node & (1u << 31 | 0xff); }
std::uint32_t offset(std::uint32_t node) { return (node >> 10) << ((node & 1u << 9) >> 6); }

/// Bytes of the first cluster of characters of `text`.
std::size_t cluster_length(std::string_view text) {
  auto rest = text;
  auto character = take_character(rest);
  utf8proc_int32_t state = 0;
  while (!rest.empty()) {
    auto after = rest;
    auto next = take_character(after);
    if (character < 0 || next < 0 || utf8proc_grapheme_break_stateful(character, next, &state))
      break;
    character = next;
    rest = after;
  }
  return text.size() - rest.size();
}

}  // namespace

CharsMap::CharsMap(std::string_view bytes, const std::string& where) {
  if (bytes.empty()) return;
  std::uint32_t size = 0;
  if (bytes.size() >= sizeof(size)) std::memcpy(&size, bytes.data(), sizeof(size));
  if (bytes.size() < sizeof(size) || size % sizeof(std::uint32_t) != 0 ||
      size > bytes.size() - sizeof(size))
    throw Error(ErrorKind::Format, where,
                "holds a broken table of character replacements (precompiled_charsmap)");
  nodes_.resize(size / sizeof(std::uint32_t));
  std::memcpy(nodes_.data(), bytes.data() + sizeof(size), size);
  texts_ = bytes.substr(sizeof(size) + size);
}

/// What stands in place of the shortest beginning of `text` that the table knows.
std::optional<std::string_view> CharsMap::find(std::string_view text) const {
  if (nodes_.empty()) return {};
  std::size_t at = offset(nodes_[0]);
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= nodes_.size() || label(nodes_[at]) != byte) return {};
    auto node = nodes_[at];
    at ^= offset(node);
    if (!has_leaf(node)) continue;
    if (at >= nodes_.size()) return {};
    std::size_t begin = nodes_[at] & 0x7fffffff;
    if (begin >= texts_.size()) return {};
    auto end = std::min(texts_.find('\0', begin), texts_.size());
    return std::string_view(texts_).substr(begin, end - begin);
  }
  return {};
}

std::string CharsMap::normalized(std::string_view text) const {
  std::string result;
  while (!text.empty()) {
    auto cluster = text.substr(0, cluster_length(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() <= longest_whole_cluster)
      if (auto known = find(cluster)) {
        result += *known;
        continue;
      }
    while (!cluster.empty()) {
      auto rest = cluster;
      take_character(rest);
      auto character = cluster.substr(0, cluster.size() - rest.size());
      result += find(character).value_or(character);
      cluster = rest;
    }
  }
  return result;
}

}  // namespace distorch::tokenizers
