#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace distorch::graph {

/// Number of inserted, deleted, replaced or swapped neighbouring letters between two words;
/// letters' case counts for nothing. Only the first 200 bytes are looked at.
int edit_distance(std::string_view a, std::string_view b);

/// At most `count` of `candidates` that look like `word`, nearest first: few edits, or one inside
/// the other.
std::vector<std::string> near_names(std::string_view word,
                                    const std::vector<std::string>& candidates,
                                    std::size_t count = 3);

/// " Did you mean 'a' or 'b'?", or "" when nothing is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace distorch::graph
