#pragma once
#include <c10/core/Device.h>

namespace distorch::device {

/// From now on the allocator of this kind of device leaves fewer holes: memory is mapped piece by
/// piece into one range of addresses, so that pieces that are freed beside each other become one and
/// each can be given back. Where a driver cannot do so, and with several devices, which read each
/// other's memory, only for a `tight` model: memory of 64 MiB and more is given as it is asked for
/// and not cut into smaller pieces, which costs some waiting on a full card and may be the only way.
/// Not where the user has set the allocator himself (PYTORCH_CUDA_ALLOC_CONF, PYTORCH_ALLOC_CONF),
/// and nothing on devices without such an allocator. For any thread.
void avoid_holes(c10::Device device, bool tight);

}  // namespace distorch::device
