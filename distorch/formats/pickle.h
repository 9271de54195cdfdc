#pragma once
#include "distorch/formats/catalog.h"

namespace distorch::formats {

/// PyTorch's own files (.ckpt, .pt, .pth, .bin): recognised so that they can be refused with
/// advice. They hold instructions for Python's unpickler, which may run any program.
Format pickle_format();

}  // namespace distorch::formats
