#include "distorch/nodes/wan_wrapper_prompts.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>
#include <utility>

namespace distorch::nodes::wan_wrapper {

namespace {

constexpr std::string_view kBlanks = " \t\r\n\f\v";

std::string trimmed(std::string_view text) {
  auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kBlanks) + 1 - first));
}

void append_utf8(std::string& to, std::uint32_t code) {
  constexpr std::uint32_t one = 0x80, two = 0x800, three = 0x10000, tail = 0x3f;
  auto follow = [&](int shift) { to += static_cast<char>(0x80 | ((code >> shift) & tail)); };
  if (code < one) {
    to += static_cast<char>(code);
  } else if (code < two) {
    to += static_cast<char>(0xc0 | (code >> 6));
    follow(0);
  } else if (code < three) {
    to += static_cast<char>(0xe0 | (code >> 12));
    follow(6);
    follow(0);
  } else {
    to += static_cast<char>(0xf0 | (code >> 18));
    follow(12);
    follow(6);
    follow(0);
  }
}

/// The character of an entity without "&" and ";"; "" where it is none that is known.
std::string entity(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> known = {{
      {"amp", "&"},
      {"lt", "<"},
      {"gt", ">"},
      {"quot", "\""},
      {"apos", "'"},
      {"nbsp", " "},
  }};
  for (const auto& [word, character] : known)
    if (word == name) return std::string(character);
  if (name.size() < 2 || name[0] != '#') return "";
  const bool hexadecimal = name[1] == 'x' || name[1] == 'X';
  const std::string digits(name.substr(hexadecimal ? 2 : 1));
  constexpr std::uint32_t last_code = 0x10ffff;
  char* end = nullptr;
  const auto code = std::strtoul(digits.c_str(), &end, hexadecimal ? 16 : 10);
  if (digits.empty() || *end != '\0' || code == 0 || code > last_code) return "";
  std::string result;
  append_utf8(result, static_cast<std::uint32_t>(code));
  return result;
}

std::string without_entities(const std::string& text) {
  constexpr std::size_t longest = 10;
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto end = text[i] == '&' ? text.find(';', i) : std::string::npos;
    auto found = end == std::string::npos || end - i > longest
                     ? std::string()
                     : entity(std::string_view(text).substr(i + 1, end - i - 1));
    if (found.empty()) {
      result += text[i];
    } else {
      result += found;
      i = end;
    }
  }
  return result;
}

/// Characters of three bytes that stand for a plain one.
std::string plain_letters(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto byte = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U;
    };
    if ((byte(0) & 0xf0U) != 0xe0U || byte(2) == 0) {
      result += text[i];
      continue;
    }
    const auto code = (byte(0) & 0x0fU) << 12 | (byte(1) & 0x3fU) << 6 | (byte(2) & 0x3fU);
    constexpr std::uint32_t wide_first = 0xff01, wide_last = 0xff5e, wide_blank = 0x3000;
    const bool single = code >= 0x2018 && code <= 0x201b,
               twofold = code >= 0x201c && code <= 0x201f;
    if (code >= wide_first && code <= wide_last)
      result += static_cast<char>(code - wide_first + '!');
    else if (code == wide_blank)
      result += ' ';
    else if (single || twofold)
      result += single ? '\'' : '"';
    else
      result += text.substr(i, 3);
    i += 2;
  }
  return result;
}

/// Where ":1.3)" stands.
struct Ending {
  std::size_t colon, close;  // npos: nowhere
  double weight;
};

/// The first at or behind `from`.
Ending next_ending(const std::string& text, std::size_t from) {
  for (auto colon = text.find(':', from); colon != std::string::npos;
       colon = text.find(':', colon + 1)) {
    auto close = text.find_first_not_of("0123456789.", colon + 1);
    if (close != std::string::npos && close > colon + 1 && text[close] == ')')
      return {colon, close, std::strtod(text.c_str() + colon + 1, nullptr)};
  }
  return {std::string::npos, std::string::npos, 1.0};
}

}  // namespace

std::vector<std::string> split_prompts(const std::string& text) {
  std::vector<std::string> prompts;
  for (std::size_t first = 0;;) {
    auto end = text.find('|', first);
    prompts.push_back(trimmed(std::string_view(text).substr(
        first, end == std::string::npos ? std::string::npos : end - first)));
    if (end == std::string::npos) return prompts;
    first = end + 1;
  }
}

WeightedPrompt without_weights(const std::string& prompt) {
  WeightedPrompt result;
  std::set<std::string> seen;
  Ending ending{0, 0, 0};
  std::size_t line_end = 0;
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] == '(' && ending.colon <= i) ending = next_ending(prompt, i + 1);
    if (line_end <= i) line_end = prompt.find('\n', i);
    if (prompt[i] != '(' || ending.colon == std::string::npos || line_end < ending.colon) {
      result.text += prompt[i];
      continue;
    }
    auto words = prompt.substr(i + 1, ending.colon - i - 1);
    result.text += words;
    // The same words count once.
    if (seen.insert(words).second) result.weights.push_back(ending.weight);
    i = ending.close;
  }
  return result;
}

std::string cleaned_prompt(const std::string& prompt) {
  const auto text = plain_letters(without_entities(without_entities(prompt)));
  std::string result;
  for (char c : trimmed(text)) {
    const bool blank = kBlanks.find(c) != std::string_view::npos;
    if (!blank || result.back() != ' ') result += blank ? ' ' : c;
  }
  return result;
}

}  // namespace distorch::nodes::wan_wrapper
