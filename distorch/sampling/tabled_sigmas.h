#pragma once
#include <vector>

#include "distorch/sampling/model_sampling.h"

namespace distorch::sampling {

/// A table of levels, highest first, as `steps` steps: interpolated in log sigma where it has
/// another number of them, of which only the last `denoise` count; the last level becomes 0.
Sigmas last_of_table(std::vector<double> levels, int steps, double denoise);

}  // namespace distorch::sampling
