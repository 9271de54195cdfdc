#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"

namespace distorch::graph {

/// The values of each given input: as many as the output has that it is linked to.
using ListInputs = std::map<std::string, std::vector<Value>>;

/// How often a node is called: once for each element of its longest list; once where it takes
/// lists. Error(Usage) where one list is empty and another is not; `place` names the node.
std::size_t call_count(const NodeType& type, const std::string& place, const ListInputs& inputs);
/// The inputs of call `i`: of each list the element there, or its last one.
ListInputs slice(const NodeType& type, const ListInputs& inputs, std::size_t i);
/// A blocker among the values; null where there is none.
const Value* blocker_in(const ListInputs& inputs);

}  // namespace distorch::graph
