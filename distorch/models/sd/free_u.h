#pragma once
#include <vector>

#include "distorch/models/patches.h"
#include "distorch/models/sd/res_block.h"

namespace distorch::models::sd {

/// What FreeU does before a residual block on the way up of a UNet: features of 4 and of 2 times
/// `model_channels` are strengthened, the low frequencies of their skip connections scaled. Empty
/// where there is none.
ResBlock::Edit free_u_edit(const std::vector<FreeU>& list, std::int64_t model_channels);

}  // namespace distorch::models::sd
