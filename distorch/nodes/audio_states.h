#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace distorch::nodes {

/// What the AUDIO_ENCODER_OUTPUT type of a workflow carries: what an audio encoder heard, 50 states a
/// second.
struct AudioStates {
  std::vector<at::Tensor> layers;  // [1, T, width] each, the last one the result
  std::int64_t samples = 0;        // of the sound, at the encoder's rate
};

}  // namespace distorch::nodes
