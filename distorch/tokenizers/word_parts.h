#pragma once
#include <cstdint>
#include <string_view>

#include "distorch/tokenizers/unicode.h"

/// What the regular expressions of byte-level tokenizers part texts into. Private to this folder.
namespace distorch::tokenizers {

/// What regular expressions call white space, and what is none of white space, letters, numbers.
bool is_blank(std::int32_t character);
bool is_other(std::int32_t character);

/// Bytes at the start of `text` of characters for which `wanted` holds.
template <class Wanted>
std::size_t run_length(std::string_view text, Wanted wanted) {
  auto rest = text;
  while (!rest.empty()) {
    auto after = rest;
    if (!wanted(take_character(after))) break;
    rest = after;
  }
  return text.size() - rest.size();
}

/// Bytes of the white space at the start of `text` that are one word: all of it at the end of the
/// text, else all but the last one, which belongs to what follows.
std::size_t blanks_length(std::string_view text);

}  // namespace distorch::tokenizers
