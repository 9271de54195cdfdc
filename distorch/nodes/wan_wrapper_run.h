#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/call.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_control.h"
#include "distorch/nodes/wan_wrapper_latents.h"

namespace distorch::nodes::wan_wrapper {

/// What WanVideoSampler is asked for, its inputs read and checked one by one.
struct SamplerJob {
  WanModel model;
  ImageEmbeds image;
  TextEmbeds text;
  sampling::WanSchedule schedule;  // only the steps that are taken
  sampling::SaOdeOptions sa_ode;
  std::vector<double> cfg;  // by step, the last one for all that follow
  std::uint64_t seed = 0;
  std::int64_t riflex = 0;
  bool from_start = true;  // the slice begins with the first step
  std::optional<sampling::Latent> samples;
  bool add_noise = false;  // to the samples
  std::optional<Enhance> enhance;
  std::optional<ContextChoice> context;
  std::optional<CacheChoice> cache;
  std::optional<SkippedLayers> skipped;
  std::optional<Loop> loop;
  std::optional<SpeechEmbeds> speech;
  Experimental experimental;
  std::optional<RenderedVideo> rendered;
};

struct SamplerResult {
  at::Tensor samples;   // [1, C, T, h, w] float32 on the CPU, in the model's scale
  at::Tensor denoised;  // what the last call takes to be the video
  LatentNotes notes;
};

/// Samples a video. Errors name what does not fit the model: pictures, text, samples.
SamplerResult sample_video(graph::Call& call, const SamplerJob& job);

}  // namespace distorch::nodes::wan_wrapper
