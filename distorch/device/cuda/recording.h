#pragma once
#include "distorch/device/recording.h"

namespace distorch::device::cuda {

/// Records as device::record() says, with CUDA graphs: one for each stretch between two calls of
/// aside().
std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside);

/// Whether any thread records now.
bool is_recording();

}  // namespace distorch::device::cuda
