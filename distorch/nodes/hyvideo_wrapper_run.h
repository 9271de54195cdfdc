#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "distorch/graph/call.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::hyvideo {

/// What HyVideoSampler is asked for, its inputs read and checked one by one.
struct SamplerJob {
  HyModel model;
  Embeds embeds;
  std::int64_t width = 512, height = 512, frames = 49;  // pixels
  std::int64_t steps = 30;
  std::string scheduler;
  double guidance = 6.0, shift = 9.0;
  std::uint64_t seed = 0;
  std::int64_t riflex = 0;
  /// Latents in the network's scale, [1, 16, t, h, w]; undefined: none. `samples` count where only a
  /// part of the steps is run.
  at::Tensor samples, image;
  double denoise = 1.0;
  bool stable = false;  // begins with a little of the picture
  at::Tensor mask;      // [T, H, W], 1 = made anew; undefined: none
  std::optional<WeakBlock> weak;
  std::optional<wan_wrapper::ContextChoice> context;
  std::optional<Enhance> enhance;
  std::optional<TeaCache> cache;
  std::optional<wan_wrapper::Loop> loop;
  std::optional<Frequencies> frequencies;
  std::optional<SkippedBlocks> skipped;
};

/// Samples a video: its latent [1, 16, T, h, w] float32 on the CPU, in the network's scale. Errors
/// name what does not fit the model: pictures, text, samples, mask.
at::Tensor sample_video(graph::Call& call, const SamplerJob& job);

}  // namespace distorch::nodes::hyvideo
