#include "distorch/tokenizers/byte_tokens.h"

#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

namespace distorch::tokenizers {

namespace {

struct Found {
  int token = 0;
  std::size_t length = 0;
};

/// The token that `text` begins by spelling.
std::optional<Found> spelled(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, int>, 3> kOwn = {
      {{"<pad>", ByteTokens::padding_token},
       {"</s>", ByteTokens::end_token},
       {"<unk>", ByteTokens::unknown_token}}};
  for (const auto& [name, token] : kOwn)
    if (text.starts_with(name)) return Found{token, name.size()};
  constexpr std::string_view kExtra = "<extra_id_";
  if (!text.starts_with(kExtra)) return {};
  const auto* digits = text.data() + kExtra.size();
  const auto* last = text.data() + text.size();
  int number = -1;
  auto [end, error] = std::from_chars(digits, last, number);
  if (error != std::errc() || end == last || *end != '>' || number < 0 ||
      number >= ByteTokens::extras)
    return {};
  auto length = static_cast<std::size_t>(end - text.data()) + 1;
  // "<extra_id_07>" is plain text.
  if (text.substr(0, length) != std::string(kExtra) + std::to_string(number) + ">") return {};
  return Found{ByteTokens::first_extra + number, length};
}

}  // namespace

std::vector<int> byte_tokens(std::string_view text) {
  std::vector<int> tokens;
  while (!text.empty()) {
    if (auto found = text.front() == '<' ? spelled(text) : std::nullopt) {
      tokens.push_back(found->token);
      text.remove_prefix(found->length);
    } else {
      tokens.push_back(ByteTokens::first_byte + static_cast<unsigned char>(text.front()));
      text.remove_prefix(1);
    }
  }
  if (!tokens.empty() && tokens.back() == ByteTokens::end_token) tokens.pop_back();
  return tokens;
}

}  // namespace distorch::tokenizers
