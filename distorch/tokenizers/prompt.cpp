#include "distorch/tokenizers/prompt.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "distorch/base/error.h"

namespace distorch::tokenizers {

namespace {

constexpr int deepest_nesting = 500;

bool is_escape(std::string_view text, std::size_t at) {
  return text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '(' || text[at + 1] == ')');
}

std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_escape(text, i)) ++i;
    result.push_back(text[i]);
  }
  return result;
}

/// Cuts a text at its outermost groups; groups keep their parentheses. A surplus ')' takes the
/// level below zero, so that the next '(' only makes up for it, as in ComfyUI.
std::vector<std::string_view> outer_parts(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  long level = 0;
  auto cut = [&](std::size_t end) {
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_escape(text, i)) {
      ++i;
    } else if (text[i] == '(') {
      if (level == 0) cut(i);
      ++level;
    } else if (text[i] == ')') {
      --level;
      if (level == 0) cut(i + 1);
    }
  }
  cut(text.size());
  return parts;
}

/// A number as Python's float() reads it: blanks around it, a sign, underscores between digits.
/// Finite only.
std::optional<double> number(std::string_view text) {
  constexpr std::string_view blanks = " \t\n\r\f\v";
  auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return std::nullopt;
  text = text.substr(first, text.find_last_not_of(blanks) - first + 1);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  auto digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    plain.push_back(text[i]);
  }
  double value = 0;
  auto [end, code] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (end != plain.data() + plain.size()) return std::nullopt;
  // Too small for a double, which Python rounds to zero; too large is infinite and refused.
  if (code == std::errc::result_out_of_range && plain.find_first_of("eE") + 1 == plain.find('-', 1))
    return 0.0;
  if (code != std::errc{} || !std::isfinite(value)) return std::nullopt;
  return value;
}

void add_parts(std::string_view text, double weight, int depth, std::vector<WeightedText>& result) {
  if (depth > deepest_nesting)
    throw Error(ErrorKind::Usage, "prompt", "has more than 500 parentheses inside each other");
  for (auto part : outer_parts(text)) {
    bool closed = part.size() >= 2 && part.front() == '(' && part.back() == ')' &&
                  !is_escape(part, part.size() - 2);
    if (!closed) {
      result.push_back({unescaped(part), weight});
      continue;
    }
    auto inner = part.substr(1, part.size() - 2);
    auto colon = inner.rfind(':');
    auto given = colon != std::string_view::npos && colon > 0 ? number(inner.substr(colon + 1))
                                                              : std::nullopt;
    add_parts(given ? inner.substr(0, colon) : inner, given.value_or(weight * 1.1), depth + 1,
              result);
  }
}

}  // namespace

std::vector<WeightedText> parse_prompt(std::string_view prompt) {
  std::vector<WeightedText> result;
  add_parts(prompt, 1.0, 0, result);
  return result;
}

std::vector<WeightedText> unweighted(std::string_view prompt) { return {{unescaped(prompt), 1.0}}; }

}  // namespace distorch::tokenizers
