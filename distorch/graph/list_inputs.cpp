#include "distorch/graph/list_inputs.h"

#include <fmt/format.h>

#include <algorithm>

namespace distorch::graph {

std::size_t call_count(const NodeType& type, const std::string& place, const ListInputs& inputs) {
  if (type.input_is_list) return 1;
  std::size_t longest = 0;
  for (auto& [name, values] : inputs) longest = std::max(longest, values.size());
  if (longest == 0) return 1;
  for (auto& [name, values] : inputs)
    if (values.empty())
      throw Error(ErrorKind::Usage, place,
                  fmt::format("input '{}' is an empty list while others are not", name));
  return longest;
}

ListInputs slice(const NodeType& type, const ListInputs& inputs, std::size_t i) {
  if (type.input_is_list) return inputs;
  ListInputs one;
  for (auto& [name, values] : inputs)
    if (!values.empty()) one[name] = {values[std::min(i, values.size() - 1)]};
  return one;
}

const Value* blocker_in(const ListInputs& inputs) {
  for (auto& [name, values] : inputs)
    for (auto& value : values)
      if (value.is_blocker()) return &value;
  return nullptr;
}

}  // namespace distorch::graph
