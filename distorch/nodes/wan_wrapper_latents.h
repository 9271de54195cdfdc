#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace distorch::nodes::wan_wrapper {

/// What the wrapper's nodes know of a latent beside its numbers.
struct LatentNotes {
  at::Tensor generator;        // state of the CPU's generator behind the run; undefined: none
  bool has_reference = false;  // the first latent frame is a picture before the video
  bool end_image = false;      // the last one is coded on its own
  bool looped = false;         // the end meets the start
};

/// Notes live as long as the tensor itself, which nodes hand on as it is; one that was computed
/// anew has none. For any number of threads.
void note(const at::Tensor& samples, LatentNotes notes);
LatentNotes notes_of(const at::Tensor& samples);

}  // namespace distorch::nodes::wan_wrapper
