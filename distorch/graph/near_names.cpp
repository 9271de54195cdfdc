#include "distorch/graph/near_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "distorch/base/text.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kLongest = 200;

std::string folded(std::string_view text) { return lower(text.substr(0, kLongest)); }

}  // namespace

int edit_distance(std::string_view a_text, std::string_view b_text) {
  std::string a = folded(a_text), b = folded(b_text);
  std::vector<int> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous[b.size()];
}

std::vector<std::string> near_names(std::string_view word,
                                    const std::vector<std::string>& candidates, std::size_t count) {
  std::string wanted = folded(word);
  std::vector<std::pair<int, std::string>> found;
  for (auto& candidate : candidates) {
    int distance = edit_distance(word, candidate);
    std::string name = folded(candidate);
    bool inside =
        wanted.size() >= 3 && name.size() >= 3 &&
        (name.find(wanted) != std::string::npos || wanted.find(name) != std::string::npos);
    int allowed =
        std::max<int>(1, static_cast<int>(std::min<std::size_t>(wanted.size(), kLongest)) / 3);
    if (distance <= allowed || inside) found.emplace_back(distance, candidate);
  }
  std::stable_sort(found.begin(), found.end(), [](auto& x, auto& y) { return x.first < y.first; });
  std::vector<std::string> names;
  for (auto& [distance, name] : found) {
    if (names.size() == count) break;
    names.push_back(name);
  }
  return names;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  auto names = near_names(word, candidates);
  if (names.empty()) return "";
  std::string text = " Did you mean ";
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i) text += i + 1 == names.size() ? " or " : ", ";
    text += fmt::format("'{}'", names[i]);
  }
  return text + "?";
}

}  // namespace distorch::graph
