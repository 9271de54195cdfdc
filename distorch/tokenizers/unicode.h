#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Characters of UTF-8 texts. Private to this folder.
namespace distorch::tokenizers {

/// Takes one character off `text` (not empty); -1 where the bytes are no UTF-8 (one byte is taken
/// then).
std::int32_t take_character(std::string_view& text);
void append_character(std::string& text, std::int32_t character);
/// The text with U+FFFD for each byte that is no UTF-8.
std::string valid_utf8(std::string_view text);

/// What Python's str.split() parts words at.
bool is_space(std::int32_t character);
bool is_letter(std::int32_t character);  // category L
bool is_number(std::int32_t character);  // category N

/// Parts of a text between white space.
std::vector<std::string_view> split_words(std::string_view text);

}  // namespace distorch::tokenizers
