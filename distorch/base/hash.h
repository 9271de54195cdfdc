#pragma once
#include <cstdint>
#include <string_view>

namespace distorch {

/// FNV-1a, 64 bits: tells texts and results apart, protects nothing. (Fowler, Noll, Vo:
/// draft-eastlake-fnv.)
constexpr std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace distorch
