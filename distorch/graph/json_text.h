#pragma once
#include <string>
#include <string_view>

#include "distorch/graph/value.h"

namespace distorch::graph {

struct JsonLimits {
  std::size_t bytes = 64u << 20;
  std::size_t depth = 256;               // nested arrays and objects
  std::size_t keys_per_object = 20'000;  // ordered objects look keys up one by one
};

/// Reads JSON written by strangers: Python's bare NaN and Infinity (old pictures carry them) become
/// null, a byte-order mark is skipped. Throws Error(Format, where) with the position of the fault,
/// or when a limit is passed.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});

/// Compact JSON; bytes that are no UTF-8 are replaced rather than refused.
std::string json_line(const Json& json);

/// A value as Python's str() or repr() would show it: messages of the protocol quote values that
/// way (True, None, 'text', ['a', 'b'], 1.0).
std::string python_str(const Json& value);
std::string python_repr(const Json& value);

}  // namespace distorch::graph
