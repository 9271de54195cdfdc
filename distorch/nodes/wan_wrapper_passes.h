#pragma once
#include <vector>

#include "distorch/nodes/wan_wrapper_network.h"
#include "distorch/nodes/wan_wrapper_run.h"

/// What a run tells the network, made of what its nodes were given.
namespace distorch::nodes::wan_wrapper {

/// [1, C, T, h, w] of the latent. Error(Shape) naming the model's file and what would fit where the
/// pictures were encoded for another one.
std::vector<std::int64_t> latent_shape(const SamplerJob& job, const WanNetwork& network);

/// The prompts' states, padded, [1, 512, width] each. Error(Usage) where there is no text,
/// Error(Shape) where another encoder made it.
std::vector<at::Tensor> padded_prompts(const SamplerJob& job, const WanNetwork& network,
                                       const std::string& place);

/// Both passes of a step but for the text, on the network's device: `part` 0..1 of the slice. The
/// negative one only where there is guidance.
struct StepPasses {
  Pass positive, negative;
};
StepPasses passes_at(const SamplerJob& job, const WanNetwork& network,
                     const std::vector<std::int64_t>& shape, double part);

/// Frames of the latent that are given as they are.
std::vector<std::int64_t> given_frames(const SamplerJob& job, std::int64_t frames);
/// Where an extra latent stands.
std::int64_t place_of(const ExtraLatent& extra, std::int64_t frames);

/// Whether what counts from `start` to `end` does in this part of the run: its first step always does
/// where the range is not over.
bool is_shown(double start, double end, double part);

/// The parts of a pass that have frames, only those of a window; the first stays the video's.
Pass in_window(const Pass& pass, const std::vector<std::int64_t>& window);

}  // namespace distorch::nodes::wan_wrapper
