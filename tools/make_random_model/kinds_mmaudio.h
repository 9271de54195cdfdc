#pragma once
#include <vector>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

/// MMAudio for 44.1 kHz and what it is used with.
std::vector<Kind> mmaudio_kinds();

}  // namespace distorch::random_model
