#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace distorch::nodes {

/// A number or truth as Python has them, but integers of 64 bits.
using Number = std::variant<bool, std::int64_t, double>;

double to_double(const Number& number);

/// The value of an expression in Python's notation: + - * / // % ** and the bits' & | ^ << >> ~,
/// comparisons in chains, and, or, not, a if c else b, calls of sum, min, max, abs, round, pow,
/// sqrt, ceil, floor, log, log2, log10, sin, cos, tan, int, float, and `names`; `values` is the list
/// of all of them in the order given. Errors: Error(Usage) with the position for what is no
/// expression, an unknown name, a division by zero, an integer that does not fit.
Number evaluate(std::string_view expression,
                const std::vector<std::pair<std::string, Number>>& names);

}  // namespace distorch::nodes
