#include "distorch/tokenizers/unicode.h"

#include <utf8proc.h>

#include <algorithm>

namespace distorch::tokenizers {

std::int32_t take_character(std::string_view& text) {
  utf8proc_int32_t character = -1;
  auto size = static_cast<utf8proc_ssize_t>(std::min<std::size_t>(text.size(), 4));
  auto length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), size, &character);
  text.remove_prefix(static_cast<std::size_t>(length > 0 ? length : 1));
  return length > 0 ? character : -1;
}

void append_character(std::string& text, std::int32_t character) {
  utf8proc_uint8_t bytes[4];
  auto length = utf8proc_encode_char(character, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::string valid_utf8(std::string_view text) {
  std::string valid;
  while (!text.empty()) {
    const auto c = take_character(text);
    append_character(valid, c < 0 ? 0xfffd : c);
  }
  return valid;
}

bool is_space(std::int32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_letter(std::int32_t character) {
  auto category = utf8proc_category(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_number(std::int32_t character) {
  auto category = utf8proc_category(character);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  const char* begin = nullptr;
  while (!text.empty()) {
    const char* at = text.data();
    bool space = is_space(take_character(text));
    if (space && begin != nullptr) {
      words.emplace_back(begin, at);
      begin = nullptr;
    } else if (!space && begin == nullptr) {
      begin = at;
    }
  }
  if (begin != nullptr) words.emplace_back(begin, text.data());
  return words;
}

}  // namespace distorch::tokenizers
