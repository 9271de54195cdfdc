#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distorch/models/audio/wav2vec2.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using LoadedAudioEncoder = Loaded<models::audio::Wav2Vec2>;

/// What travels over links of type AUDIO_ENCODER.
struct AudioEncoder {
  std::shared_ptr<LoadedAudioEncoder> loaded;
};

/// What the AUDIO_ENCODER_OUTPUT type of a workflow carries: what an audio encoder heard, 50 states a
/// second.
struct AudioStates {
  std::vector<at::Tensor> layers;  // [1, T, width] each, the last one the result
  std::int64_t samples = 0;        // of the sound, at the encoder's rate
};

}  // namespace distorch::nodes
