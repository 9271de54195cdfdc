#include "distorch/nodes/hyvideo_wrapper_passes.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;

namespace {

constexpr std::int64_t kFrames = 4, kPixels = 8, kSide = 16;

[[noreturn]] void misfit(const SamplerJob& job, const std::string& sentence) {
  throw Error(ErrorKind::Shape, job.model.file.string(), sentence);
}

std::int64_t rounded_up(std::int64_t size) { return (size + kSide - 1) / kSide * kSide; }

void check_text(const SamplerJob& job, const HyNetwork& network, const Tensor& states,
                const Tensor& pooled) {
  if (states.dim() != 3 || states.size(2) != network.text_width())
    misfit(job, fmt::format("takes text of width {}, and 'hyvid_embeds' has {}: encode the prompt "
                            "with its own text encoder, Llama 3 8B",
                            network.text_width(), c10::str(states.sizes())));
  if (!pooled.defined()) return;
  if (network.pooled_width() != 0 &&
      (pooled.dim() != 2 || pooled.size(1) != network.pooled_width()))
    misfit(job, fmt::format("takes a pooled text of {} numbers, and 'hyvid_embeds' has {}: encode "
                            "it with CLIP-L",
                            network.pooled_width(), c10::str(pooled.sizes())));
}

/// A text with rows of zeros behind it.
Tensor lengthened(const Tensor& states, std::int64_t tokens) {
  return at::constant_pad_nd(states.to(at::kFloat), {0, 0, 0, tokens - states.size(1)}, 0);
}

void check_picture(const SamplerJob& job, const HyNetwork& network,
                   const std::vector<std::int64_t>& shape) {
  const auto& image = job.image;
  const auto frames = image.size(2);
  if (image.size(1) != network.channels())
    misfit(job, fmt::format("works on latents of {} channels, and 'image_cond_latents' has {}",
                            network.channels(), image.size(1)));
  const bool of_video = job.model.condition == Condition::Concat;
  if (image.sizes().slice(3) != at::IntArrayRef(shape).slice(3) ||
      (of_video && frames != 1 && frames != shape[2]) || (!of_video && frames != 1))
    misfit(job, fmt::format("makes a latent of {} x {} x {} frames, rows and columns here, and "
                            "'image_cond_latents' has {} x {} x {}: encode {} in the size of the "
                            "video",
                            shape[2], shape[3], shape[4], frames, image.size(3), image.size(4),
                            of_video ? "one picture or all frames" : "one picture"));
}

/// Channels beside the latent: the picture and, where there is one more, 1 in its frame.
Tensor beside_of(const SamplerJob& job, const HyNetwork& network,
                 const std::vector<std::int64_t>& shape) {
  const auto beside = network.beside();
  if (!job.image.defined()) {
    if (beside > 0)
      misfit(job,
             "makes videos from a picture: link HyVideoEncode to 'image_cond_latents' of "
             "HyVideoSampler");
    return {};
  }
  if (beside == 0)
    misfit(job,
           "makes videos from text alone, and HyVideoSampler got image_cond_latents: load a model "
           "whose name says i2v, SkyReels or custom");
  auto image = padded_picture(job.image, shape);
  if (beside == network.channels()) return image;
  auto given = at::zeros({1, 1, shape[2], shape[3], shape[4]}, image.options());
  given.select(2, 0).fill_(1);
  return at::cat({image, given}, 1);
}

}  // namespace

std::vector<std::int64_t> latent_shape(const SamplerJob& job, const std::string& place) {
  if ((job.frames - 1) % kFrames != 0)
    throw Error(ErrorKind::Usage, place,
                fmt::format("input 'num_frames' is {}, and lengths are 4n + 1: take {} or {}",
                            job.frames, (job.frames - 1) / kFrames * kFrames + 1,
                            ((job.frames - 1) / kFrames + 1) * kFrames + 1));
  constexpr std::int64_t channels = 16;
  auto height = rounded_up(job.height), width = rounded_up(job.width);
  if (job.mask.defined()) {
    height = job.mask.size(1);
    width = job.mask.size(2);
    if (height % kSide != 0 || width % kSide != 0)
      throw Error(ErrorKind::Shape, place,
                  fmt::format("input 'mask' gives the video its size, {} x {}, and both have to be "
                              "multiples of {}",
                              width, height, kSide));
  }
  return {1, channels, (job.frames - 1) / kFrames + 1, height / kPixels, width / kPixels};
}

Tensor padded_picture(const Tensor& image, const std::vector<std::int64_t>& shape) {
  return at::constant_pad_nd(image, {0, 0, 0, 0, 0, shape[2] - image.size(2)}, 0);
}

RunPasses passes_of(const SamplerJob& job, const HyNetwork& network,
                    const std::vector<std::int64_t>& shape, const std::string& place) {
  const auto& embeds = job.embeds;
  if (!embeds.states.defined())
    throw Error(ErrorKind::Usage, place, "needs a prompt at 'hyvid_embeds'");
  check_text(job, network, embeds.states, embeds.pooled);
  const auto device = network.device();
  auto tokens = embeds.states.size(1);
  if (embeds.negative.defined()) tokens = std::max(tokens, embeds.negative.size(1));
  Pass pass;
  if (job.image.defined()) check_picture(job, network, shape);
  switch (job.model.condition) {
    case Condition::Concat:
      if (auto beside = beside_of(job, network, shape); beside.defined())
        pass.beside = beside.to(device);
      break;
    case Condition::Reference:
      if (job.image.defined()) pass.reference = job.image.to(device);
      break;
    case Condition::Replace: break;
  }
  auto with_text = [&](const Tensor& states, const Tensor& pooled) {
    auto one = pass;
    one.text = lengthened(states, tokens).to(device);
    if (pooled.defined() && network.pooled_width() > 0) one.pooled = pooled.to(device, at::kFloat);
    return one;
  };
  RunPasses both{with_text(embeds.states, embeds.pooled), {}};
  if (embeds.negative.defined()) {
    check_text(job, network, embeds.negative, embeds.negative_pooled);
    both.negative = with_text(embeds.negative, embeds.negative_pooled);
  }
  if (!embeds.guidance || embeds.guidance->scale <= 1) return both;
  if (!both.negative || both.positive.pooled.defined() != both.negative->pooled.defined())
    throw Error(ErrorKind::Usage, place,
                fmt::format("is guided with cfg {}, and 'hyvid_embeds' has no {} of the negative "
                            "prompt: link HyVideoCFG to the node that encodes the prompt",
                            embeds.guidance->scale, both.negative ? "pooled text" : "states"));
  return both;
}

Pass in_window(const Pass& pass, const std::vector<std::int64_t>& window) {
  Pass part = pass;
  if (pass.beside.defined())
    part.beside = pass.beside.index_select(
        2, at::tensor(window, at::TensorOptions(at::kLong)).to(pass.beside.device()));
  return part;
}

}  // namespace distorch::nodes::hyvideo
