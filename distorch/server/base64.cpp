#include "distorch/server/base64.h"

#include <cstdint>

namespace distorch::server {

namespace {

constexpr std::string_view kLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kAddressLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr int kBits = 6;

std::string encoded(std::string_view bytes, std::string_view letters) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  std::uint32_t held = 0;
  int count = 0;
  for (unsigned char byte : bytes) {
    held = held << 8 | byte;
    for (count += 8; count >= kBits; count -= kBits) text += letters[held >> (count - kBits) & 63];
  }
  if (count > 0) text += letters[held << (kBits - count) & 63];
  return text;
}

}  // namespace

std::string base64_of(std::string_view bytes) {
  auto text = encoded(bytes, kLetters);
  while (text.size() % 4 != 0) text += '=';
  return text;
}

std::string base64_for_address(std::string_view bytes) { return encoded(bytes, kAddressLetters); }

std::optional<std::string> bytes_of_address(std::string_view text) {
  std::string bytes;
  std::uint32_t held = 0;
  int count = 0;
  for (char letter : text) {
    auto value = kAddressLetters.find(letter);
    if (value == std::string_view::npos) return {};
    held = held << kBits | static_cast<std::uint32_t>(value);
    count += kBits;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(held >> count & 255);
  }
  // What is left over is padding with zeros, less than a letter.
  if (count >= kBits || (held & ((1u << count) - 1)) != 0) return {};
  return bytes;
}

}  // namespace distorch::server
