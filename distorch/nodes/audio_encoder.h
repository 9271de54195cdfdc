#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"

namespace distorch::nodes {

/// waveform [..., N] at `from` samples a second -> [..., N · to / from, rounded up] at `to`, without
/// what the lower of the two rates cannot carry. Source: torchaudio's resample (a windowed sinc, six
/// zero crossings wide, rolled off at 0.99).
at::Tensor resampled(const at::Tensor& waveform, std::int64_t from, std::int64_t to);

void add_audio_encoder_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
