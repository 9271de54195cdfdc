#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// A weight whose rows lie in several tensors one after the other, as files have it that keep the
/// parts of a fused projection apart. `values` is the first piece, `parts` are the others, each with
/// its rows; the elements are plain numbers of any types. Made by Checkpoint::add_joined(), never by
/// a file's marker. Where the pieces are laid one behind the other (streaming::Contents), the weight
/// is a plain tensor.
const Encoding& joined();

}  // namespace distorch::quant
