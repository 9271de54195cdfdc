#include "distorch/tokenizers/clip_text.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

bool is_removed(std::int32_t c) {
  if (c <= 0 || c == 0xfffd) return true;
  if (c == '\t' || c == '\n' || c == '\r') return false;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN: return true;
    default: return false;
  }
}

/// Ideographs that are set apart as words; the blocks of BERT's tokenizer (no kana, no hangul).
bool is_ideograph(std::int32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

std::string composed(const std::string& text) {
  utf8proc_uint8_t* output = nullptr;
  auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                             static_cast<utf8proc_ssize_t>(text.size()), &output, options);
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(output, std::free);
  if (length < 0) throw Error(ErrorKind::OutOfMemory, "prompt", utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(output), static_cast<std::size_t>(length)};
}

bool is_cased(std::int32_t c) {
  auto category = utf8proc_category(c);
  if (category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
      category == UTF8PROC_CATEGORY_LT)
    return true;
  // Letters by look: ordinals, Roman numerals, letters in circles and squares.
  return c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9) ||
         (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

/// Characters that do not end a word when looking for its last sigma (Unicode, "Case_Ignorable").
bool is_case_ignorable(std::int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x387 || c == 0x55f ||
             c == 0x5f4 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027 ||
             c == 0xfe13 || c == 0xfe52 || c == 0xfe55 || c == 0xff07 || c == 0xff0e || c == 0xff1a;
  }
}

/// Whether the sigma at `at` ends its word: letters before it, none after.
bool is_final_sigma(const std::vector<std::int32_t>& word, std::size_t at) {
  auto before = at;
  while (before > 0 && is_case_ignorable(word[before - 1])) --before;
  if (before == 0 || !is_cased(word[before - 1])) return false;
  auto after = at + 1;
  while (after < word.size() && is_case_ignorable(word[after])) ++after;
  return after == word.size() || !is_cased(word[after]);
}

/// Lower case of a word with the two rules that look beyond one character for another.
void append_lower(std::string& text, std::string_view word) {
  std::vector<std::int32_t> characters;
  while (!word.empty()) characters.push_back(take_character(word));
  for (std::size_t i = 0; i < characters.size(); ++i) {
    auto c = characters[i];
    if (c == 0x130) {  // I with a dot
      append_character(text, 'i');
      append_character(text, 0x307);
    } else if (c == 0x3a3) {  // sigma
      append_character(text, is_final_sigma(characters, i) ? 0x3c2 : 0x3c3);
    } else {
      append_character(text, utf8proc_tolower(c));
    }
  }
}

}  // namespace

std::string clean_clip_text(std::string_view utf8) {
  std::string kept;
  while (!utf8.empty()) {
    auto c = take_character(utf8);
    if (is_removed(c)) continue;
    bool apart = is_ideograph(c);
    if (apart) kept.push_back(' ');
    append_character(kept, c);
    if (apart) kept.push_back(' ');
  }
  kept = composed(kept);
  std::string clean;
  for (auto word : split_words(kept)) {
    if (!clean.empty()) clean.push_back(' ');
    append_lower(clean, word);
  }
  return clean;
}

}  // namespace distorch::tokenizers
