#include "distorch/nodes/python_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "distorch/nodes/special_case.h"

namespace distorch::nodes {

namespace {

utf8proc_category_t category(char32_t c) {
  return c < kStrayByte ? utf8proc_category(static_cast<utf8proc_int32_t>(c))
                        : UTF8PROC_CATEGORY_CN;
}

bool is_cased(char32_t c) {
  auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
         kind == UTF8PROC_CATEGORY_LT;
}

/// What does not part a word from the letters behind it.
bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return c == U'\'' || c == U'.' || c == U':' || c == 0xb7 || c == 0x2018 || c == 0x2019;
  }
}

/// A sigma with a letter before it and none behind.
bool is_final_sigma(std::u32string_view text, std::size_t at) {
  auto before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  auto behind = at + 1;
  while (behind < text.size() && is_case_ignorable(text[behind])) ++behind;
  return behind == text.size() || !is_cased(text[behind]);
}

void append_lower(std::u32string& result, std::u32string_view text, std::size_t at) {
  constexpr char32_t capital_i_with_dot = 0x130, capital_sigma = 0x3a3;
  if (text[at] == capital_i_with_dot)
    result += U"i\u0307";
  else if (text[at] == capital_sigma)
    result += is_final_sigma(text, at) ? U'\u03c2' : U'\u03c3';
  else
    result += simple_lower(text[at]);
}

const SpecialCase* special_case(char32_t c) {
  auto found = std::lower_bound(
      std::begin(kSpecialCases), std::end(kSpecialCases), c,
      [](const SpecialCase& entry, char32_t value) { return entry.character < value; });
  return found != std::end(kSpecialCases) && found->character == c ? found : nullptr;
}

void append_title(std::u32string& result, char32_t c) {
  if (const auto* special = special_case(c))
    result += special->title;
  else
    result += c < kStrayByte
                  ? static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)))
                  : c;
}

}  // namespace

std::u32string characters_of(std::string_view utf8) {
  std::u32string result;
  while (!utf8.empty()) {
    utf8proc_int32_t c = -1;
    auto size = static_cast<utf8proc_ssize_t>(std::min<std::size_t>(utf8.size(), 4));
    auto taken = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(utf8.data()), size, &c);
    if (taken < 1) {
      result += kStrayByte + static_cast<unsigned char>(utf8.front());
      taken = 1;
    } else {
      result += static_cast<char32_t>(c);
    }
    utf8.remove_prefix(static_cast<std::size_t>(taken));
  }
  return result;
}

std::string utf8_of(std::u32string_view characters) {
  std::string result;
  for (auto c : characters) {
    if (c >= kStrayByte) {
      result += static_cast<char>(c - kStrayByte);
      continue;
    }
    utf8proc_uint8_t bytes[4];
    auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
    result.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
  }
  return result;
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0x2028 || c == 0x2029 || category(c) == UTF8PROC_CATEGORY_ZS;
}

bool is_word(char32_t c) {
  if (c == U'_') return true;
  auto kind = category(c);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
         (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

bool is_digit(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

char32_t simple_lower(char32_t c) {
  return c < kStrayByte ? static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)))
                        : c;
}

char32_t simple_upper(char32_t c) {
  return c < kStrayByte ? static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)))
                        : c;
}

std::u32string lower(std::u32string_view text) {
  std::u32string result;
  for (std::size_t i = 0; i < text.size(); ++i) append_lower(result, text, i);
  return result;
}

std::u32string upper(std::u32string_view text) {
  std::u32string result;
  for (auto c : text) {
    if (const auto* special = special_case(c))
      result += special->upper;
    else
      result += simple_upper(c);
  }
  return result;
}

std::u32string capitalized(std::u32string_view text) {
  std::u32string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == 0)
      append_title(result, text[i]);
    else
      append_lower(result, text, i);
  }
  return result;
}

std::u32string titled(std::u32string_view text) {
  std::u32string result;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (inside)
      append_lower(result, text, i);
    else
      append_title(result, text[i]);
    inside = is_cased(text[i]);
  }
  return result;
}

}  // namespace distorch::nodes
