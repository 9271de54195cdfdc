#pragma once
#include <string>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// Widget values of nodes whose widgets lay in another order when the workflow was saved, by name;
/// any others as they are. Told by the kind of value that stands in one place.
Json without_older_order(const std::string& type, const Json& values);

}  // namespace distorch::graph
