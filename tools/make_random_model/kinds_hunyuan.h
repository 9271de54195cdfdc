#pragma once
#include <vector>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

/// The models of HunyuanVideo and of what they are used with.
std::vector<Kind> hunyuan_kinds();

}  // namespace distorch::random_model
