#pragma once
#include <vector>

#include "distorch/nodes/hyvideo_wrapper_network.h"
#include "distorch/nodes/hyvideo_wrapper_run.h"

/// What a run of HyVideoSampler tells the network, made of what its nodes were given.
namespace distorch::nodes::hyvideo {

/// [1, 16, T, h, w] of the latent. Error(Usage) for a length that is not 4n + 1.
std::vector<std::int64_t> latent_shape(const SamplerJob& job, const std::string& place);

/// Both passes, on the network's device; the negative one where the prompt has one, both texts of one
/// length. Errors: Usage where guidance needs a negative prompt that is not there, Shape naming the
/// model's file where text or picture belong to another model.
struct RunPasses {
  Pass positive;
  std::optional<Pass> negative;
};
RunPasses passes_of(const SamplerJob& job, const HyNetwork& network,
                    const std::vector<std::int64_t>& shape, const std::string& place);

/// The picture with a frame for each of the video's: zeros behind a single one.
at::Tensor padded_picture(const at::Tensor& image, const std::vector<std::int64_t>& shape);

/// The parts of a pass that have frames, only those of a window.
Pass in_window(const Pass& pass, const std::vector<std::int64_t>& window);

}  // namespace distorch::nodes::hyvideo
