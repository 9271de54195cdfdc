#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

/// Private to this folder.
namespace distorch::tokenizers {

/// Pairs of tokens that merge: (left << 32 | right) -> merged token, which is also the rank.
using Merges = std::unordered_map<std::uint64_t, int>;

inline std::uint64_t pair_key(int left, int right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

/// Merges neighbours until none can be, lowest merged token first and from the left. n log n,
/// because a prompt may be one endless word.
std::vector<int> merged(std::vector<int> tokens, const Merges& merges);

}  // namespace distorch::tokenizers
