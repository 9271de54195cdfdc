#pragma once
#include <c10/core/Device.h>

namespace distorch::device {

/// From now on the allocator of this kind of device gives memory of 64 MiB and more as it is asked for,
/// and does not cut it into smaller pieces: what is freed can be given back whole, and no holes stay
/// between pieces in use. That costs some waiting on a full card, where it may be the only way. Not
/// where the user has set the allocator himself (PYTORCH_CUDA_ALLOC_CONF, PYTORCH_ALLOC_CONF), and
/// nothing on devices without such an allocator. For any thread.
void keep_large_blocks_whole(c10::Device device);

}  // namespace distorch::device
