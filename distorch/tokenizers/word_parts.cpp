#include "distorch/tokenizers/word_parts.h"

namespace distorch::tokenizers {

bool is_blank(std::int32_t c) { return is_space(c) && !(c >= 28 && c <= 31); }

bool is_other(std::int32_t c) { return !is_blank(c) && !is_letter(c) && !is_number(c); }

std::size_t blanks_length(std::string_view text) {
  const auto all = run_length(text, is_blank);
  if (all == text.size()) return all;
  std::size_t last = 0;
  for (auto rest = text; text.size() - rest.size() < all;) {
    last = text.size() - rest.size();
    take_character(rest);
  }
  return last == 0 ? all : last;
}

}  // namespace distorch::tokenizers
