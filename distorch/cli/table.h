#pragma once
#include <string>
#include <vector>

namespace distorch::cli {

/// Rows as text with aligned columns; the first row is the heading. Columns named in `right` are
/// right-aligned.
std::string format_table(const std::vector<std::vector<std::string>>& rows,
                         const std::vector<int>& right = {});

}  // namespace distorch::cli
