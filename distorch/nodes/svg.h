#pragma once
#include <string>
#include <vector>

namespace distorch::nodes {

/// What travels over links of type SVG: drawings as the text of their files.
using SvgDrawings = std::vector<std::string>;

}  // namespace distorch::nodes
