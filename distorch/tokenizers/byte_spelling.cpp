#include "distorch/tokenizers/byte_spelling.h"

#include <array>
#include <unordered_map>

#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

std::array<std::int32_t, 256> characters_of_bytes() {
  auto prints = [](std::int32_t byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
  };
  std::array<std::int32_t, 256> characters{};
  std::int32_t next = 256;
  for (std::int32_t byte = 0; byte < 256; ++byte)
    characters[static_cast<std::size_t>(byte)] = prints(byte) ? byte : next++;
  return characters;
}

}  // namespace

std::int32_t character_of_byte(unsigned char byte) {
  static const auto kCharacters = characters_of_bytes();
  return kCharacters[byte];
}

std::string spelling_of_bytes(std::string_view bytes) {
  std::string token;
  for (char byte : bytes)
    append_character(token, character_of_byte(static_cast<unsigned char>(byte)));
  return token;
}

std::string bytes_of_spelling(std::string_view token) {
  static const auto kBytes = [] {
    std::unordered_map<std::int32_t, char> bytes;
    for (int byte = 0; byte < 256; ++byte)
      bytes[character_of_byte(static_cast<unsigned char>(byte))] = static_cast<char>(byte);
    return bytes;
  }();
  std::string bytes;
  while (!token.empty()) {
    const auto at = kBytes.find(take_character(token));
    if (at == kBytes.end()) return {};
    bytes.push_back(at->second);
  }
  return bytes;
}

}  // namespace distorch::tokenizers
