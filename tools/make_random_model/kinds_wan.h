#pragma once
#include <vector>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

/// The models of Wan 2.1 and 2.2 and of what they are used with.
std::vector<Kind> wan_kinds();

}  // namespace distorch::random_model
