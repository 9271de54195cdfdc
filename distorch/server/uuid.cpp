#include "distorch/server/uuid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <random>

namespace distorch::server {

std::string new_uuid() {
  std::random_device source;
  std::uniform_int_distribution<std::uint32_t> any;
  auto a = any(source), b = any(source), c = any(source), d = any(source);
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", a, b >> 16, b & 0xfff,
                     0x8000 | (c >> 16 & 0x3fff), c & 0xffff, d);
}

bool is_uuid(std::string_view text) {
  constexpr std::string_view form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  return text.size() == form.size() &&
         std::equal(text.begin(), text.end(), form.begin(), [](char c, char wanted) {
           bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           return wanted == '-' ? c == '-' : digit;
         });
}

}  // namespace distorch::server
