#pragma once
#include <string>
#include <string_view>

/// Texts as Python's str has them: characters are Unicode code points, white space and letters are
/// Unicode's. Texts inside the program are UTF-8; bytes that are none stay as they are, as characters
/// from kStrayByte on.
namespace distorch::nodes {

constexpr char32_t kStrayByte = 0x110000;

std::u32string characters_of(std::string_view utf8);
std::string utf8_of(std::u32string_view characters);

bool is_white_space(char32_t c);  // str.isspace
bool is_word(char32_t c);         // \w of regular expressions: letters, numbers and the underscore
bool is_digit(char32_t c);        // \d
/// One character for one, as regular expressions ignore case.
char32_t simple_lower(char32_t c);
char32_t simple_upper(char32_t c);

// str.lower(), str.upper(), str.capitalize(), str.title(): one character may become several.
std::u32string lower(std::u32string_view text);
std::u32string upper(std::u32string_view text);
std::u32string capitalized(std::u32string_view text);
std::u32string titled(std::u32string_view text);

}  // namespace distorch::nodes
