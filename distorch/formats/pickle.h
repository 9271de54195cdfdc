#pragma once
#include "distorch/formats/catalog.h"

namespace distorch::formats {

/// PyTorch's own files (.ckpt, .pt, .pth, .bin), as torch.save writes them: a zip archive (torch 1.6
/// and later), or the older row of pickles. They hold instructions for Python's unpickler, which
/// could run any program; here they are only read as data, so that tensors are found (unpickler.h).
/// Nested dictionaries become names with dots. As in ComfyUI, of a dictionary with "state_dict" only
/// that counts, and one with a single entry counts as that entry.
/// Error(Format): no tensors in it, a tensor that does not lie row by row, big-endian numbers.
Format pickle_format();

}  // namespace distorch::formats
