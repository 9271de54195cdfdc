#include "distorch/cli/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace distorch::cli {

std::string format_table(const std::vector<std::vector<std::string>>& rows,
                         const std::vector<int>& right) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      bool to_right = std::find(right.begin(), right.end(), static_cast<int>(i)) != right.end();
      line += to_right ? fmt::format("{:>{}}", row[i], widths[i])
                       : fmt::format("{:<{}}", row[i], widths[i]);
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace distorch::cli
