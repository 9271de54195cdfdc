#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/audio_states.h"

namespace distorch::nodes {

/// waveform [..., N] at `from` samples a second -> [..., N · to / from, rounded up] at `to`, without
/// what the lower of the two rates cannot carry. Source: torchaudio's resample (a windowed sinc, six
/// zero crossings wide, rolled off at 0.99).
at::Tensor resampled(const at::Tensor& waveform, std::int64_t from, std::int64_t to);

/// What an encoder hears of samples [1, channels, N] at its rate, as Wav2Vec2::hear gives it, on the
/// CPU; for a plan zeros.
std::vector<at::Tensor> layers_of(graph::Call& call, LoadedAudioEncoder& loaded,
                                  const at::Tensor& samples);

void add_audio_encoder_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
