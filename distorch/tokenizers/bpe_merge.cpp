#include "distorch/tokenizers/bpe_merge.h"

#include <functional>
#include <queue>
#include <utility>

namespace distorch::tokenizers {

namespace {

/// One merge that may be done: lowest token first (tokens are numbered by rank), then from the
/// left.
struct Candidate {
  int merged;
  std::size_t left;
  int left_token;
  int right_token;
  bool operator>(const Candidate& other) const {
    return std::pair(merged, left) > std::pair(other.merged, other.left);
  }
};

}  // namespace

std::vector<int> merged(std::vector<int> token, const Merges& merges) {
  // Tokens as a linked list over the positions of their first parts, merges from a heap.
  auto count = token.size();
  std::vector<std::size_t> next(count), previous(count);
  for (std::size_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i - 1;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  auto consider = [&](std::size_t left) {
    if (next[left] >= count) return;
    auto found = merges.find(pair_key(token[left], token[next[left]]));
    if (found != merges.end())
      candidates.push({found->second, left, token[left], token[next[left]]});
  };
  for (std::size_t i = 0; i < count; ++i) consider(i);
  while (!candidates.empty()) {
    auto best = candidates.top();
    candidates.pop();
    auto left = best.left;
    // Overtaken by an earlier merge? Merged positions hold -1.
    if (token[left] != best.left_token || next[left] >= count ||
        token[next[left]] != best.right_token)
      continue;
    auto right = next[left];
    token[left] = best.merged;
    token[right] = -1;
    next[left] = next[right];
    if (next[left] < count) previous[next[left]] = left;
    if (left > 0) consider(previous[left]);
    consider(left);
  }
  std::vector<int> result;
  for (std::size_t i = 0; i < count; i = next[i]) result.push_back(token[i]);
  return result;
}

}  // namespace distorch::tokenizers
