#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace distorch {

/// 128 bits that stand for some bytes.
struct Digest {
  std::uint64_t high = 0, low = 0;
  auto operator<=>(const Digest&) const = default;
};

/// XXH3, 128 bits: the same on every machine and in every run. Tells contents apart that nobody
/// chose in order to collide; where strangers choose them take keyed_digest().
Digest digest(std::string_view bytes, std::uint64_t seed = 0);

/// The same hash under a secret that is drawn anew in every process: nobody outside can look for
/// two contents that collide. For keys that live in memory only.
Digest keyed_digest(std::string_view bytes);

/// 32 lower-case hexadecimal digits, high half first.
std::string hex(const Digest& digest);

}  // namespace distorch
