#pragma once
#include <vector>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

/// The models of LTX-Video.
std::vector<Kind> ltxv_kinds();

}  // namespace distorch::random_model
