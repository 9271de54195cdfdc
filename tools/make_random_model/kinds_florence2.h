#pragma once
#include <vector>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

/// Florence-2 with the files that its folder has beside the weights.
std::vector<Kind> florence2_kinds();

}  // namespace distorch::random_model
