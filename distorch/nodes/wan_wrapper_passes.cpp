#include "distorch/nodes/wan_wrapper_passes.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;

namespace {

constexpr std::int64_t kFramesOfCell = 4, kSecondVae = 48, kMaskChannels = 4;

[[noreturn]] void misfit(const SamplerJob& job, const std::string& sentence) {
  throw Error(ErrorKind::Shape, job.model.file.string(), sentence);
}

std::int64_t channels_of(const Tensor& latent) { return latent.defined() ? latent.size(0) : 0; }

/// Only the first latent frame, zeros behind it.
Tensor first_frame_only(const Tensor& latent) {
  auto first = at::zeros_like(latent);
  first.narrow(1, 0, 1).copy_(latent.narrow(1, 0, 1));
  return first;
}

/// What the network has channels for beside the latent, [1, channels, T, h, w]; undefined: nothing.
Tensor beside_of(const SamplerJob& job, const WanNetwork& network,
                 const std::vector<std::int64_t>& shape, double part) {
  const auto& image = job.image;
  auto left = network.beside();
  const auto channels = network.channels();
  if (left == 0) {
    if (image.latent.defined() || image.control)
      misfit(job,
             "makes videos from text alone, and WanVideoSampler got pictures: load a model of the "
             "kind I2V or Fun, or link WanVideoEmptyEmbeds");
    return {};
  }
  std::vector<Tensor> parts;
  const std::vector<std::int64_t> one = {channels, shape[2], shape[3], shape[4]};
  const bool pictures_only = left == channels + kMaskChannels;
  if (image.control && !pictures_only) {
    const auto& control = image.control->latent;
    if (control.sizes() != at::IntArrayRef(one))
      misfit(job, fmt::format("follows a control video of {} x {} x {} latent frames, rows and "
                              "columns here, and got one of {}",
                              one[1], one[2], one[3], c10::str(control.sizes())));
    const bool shown = is_shown(image.control->start, image.control->end, part);
    parts.push_back(shown ? control : at::zeros_like(control));
    left -= channels;
  }
  auto latent = image.latent.defined() ? image.latent : at::zeros(one);
  if (left == channels + kMaskChannels) {
    if (!image.latent.defined() && !image.control)
      misfit(job,
             "makes videos from pictures: link WanVideoImageToVideoEncode with a start_image to "
             "'image_embeds'");
    auto mask = image.mask.defined() ? image.mask
                                     : at::zeros({kMaskChannels, shape[2], shape[3], shape[4]});
    parts.push_back(mask);
    parts.push_back(latent);
    left = 0;
  } else if (left == channels) {
    parts.push_back(first_frame_only(latent));
    left = 0;
  }
  if (left != 0)
    misfit(job, fmt::format("has {} channels beside its latent, for which these nodes have nothing "
                            "to give",
                            network.beside()));
  return at::cat(parts).unsqueeze(0);
}

/// What VACE follows, and how much of it in this part of the run; nothing of no strength where
/// nothing is linked.
void add_vace(const SamplerJob& job, const WanNetwork& network,
              const std::vector<std::int64_t>& shape, double part, Pass& pass) {
  const auto channels = network.vace_channels();
  if (channels == 0 && !job.image.vace.empty())
    misfit(job,
           "is no model of the kind VACE, and WanVideoSampler got frames of WanVideoVACEEncode");
  if (channels == 0) return;
  const auto options = at::TensorOptions(at::kFloat).device(network.device());
  std::vector<Tensor> contexts;
  std::vector<double> strengths;
  for (const auto& control : job.image.vace) {
    // One without a picture before the video has nothing there.
    auto whole = at::zeros({channels, shape[2], shape[3], shape[4]}, options);
    const auto frames = control.context.size(1);
    if (frames > shape[2] || control.context.sizes().slice(2) != at::IntArrayRef(shape).slice(3))
      misfit(job,
             fmt::format("follows frames of {} x {} x {} in the latent here, and got some of {}: "
                         "give all WanVideoVACEEncode the same sizes",
                         shape[2], shape[3], shape[4], c10::str(control.context.sizes())));
    whole.narrow(1, shape[2] - frames, frames).copy_(control.context);
    contexts.push_back(whole);
    strengths.push_back(part >= control.start && part <= control.end ? control.strength : 0);
  }
  if (contexts.empty()) {
    contexts.push_back(at::zeros({channels, shape[2], shape[3], shape[4]}, options));
    strengths.push_back(0);
  }
  pass.vace = at::stack(contexts).unsqueeze(0);
  pass.vace_strength = at::tensor(strengths, options).unsqueeze(0);
}

/// Speech of each frame.
void add_speech(const SamplerJob& job, const WanNetwork& network, std::int64_t frames, Pass& pass) {
  if (!job.speech) return;
  const auto& tokens = job.speech->tokens;
  if (network.speech_width() == 0)
    misfit(job,
           "has no layers that hear speech, and WanVideoSampler got 'fantasytalking_embeds': link "
           "FantasyTalkingModelLoader to 'fantasytalking_model' of its loader");
  if (tokens.size(3) != network.speech_width())
    misfit(job, fmt::format("hears speech of width {}, and 'fantasytalking_embeds' has {}: link "
                            "one FantasyTalkingModelLoader to both",
                            network.speech_width(), tokens.size(3)));
  if (tokens.size(1) != frames)
    misfit(job,
           fmt::format("makes a video of {} latent frames here, and 'fantasytalking_embeds' is the "
                       "speech of {}: set num_frames of FantasyTalkingWav2VecEmbeds to {}",
                       frames, tokens.size(1), (frames - 1) * kFramesOfCell + 1));
  pass.speech = tokens.to(network.device());
}

}  // namespace

std::vector<std::int64_t> latent_shape(const SamplerJob& job, const WanNetwork& network) {
  const auto& image = job.image;
  const auto channels = network.channels();
  const bool second = channels == kSecondVae;
  const char* fitting = second ? "wan2.2_vae" : "wan_2.1_vae";
  if (image.latent.defined()) {
    if (channels_of(image.latent) != channels)
      misfit(job,
             fmt::format("works on latents of {} channels, and the pictures were encoded to {}: "
                         "encode them with the VAE of Wan {} ({})",
                         channels, channels_of(image.latent), second ? "2.2" : "2.1", fitting));
    return {1, channels, image.latent.size(1), image.latent.size(2), image.latent.size(3)};
  }
  const auto frames = (image.frames - 1) / kFramesOfCell + 1 + (image.has_reference ? 1 : 0);
  const std::int64_t part = second ? 2 : 1;
  return {1, channels, frames, image.height / part, image.width / part};
}

std::vector<Tensor> padded_prompts(const SamplerJob& job, const WanNetwork& network,
                                   const std::string& place) {
  if (job.text.prompts.empty())
    throw Error(ErrorKind::Usage, place, "needs prompts at 'text_embeds': link WanVideoTextEncode");
  std::vector<Tensor> padded;
  auto add = [&](const Tensor& states) {
    if (states.size(1) != network.text_width())
      misfit(job,
             fmt::format("takes text of width {}, and 'text_embeds' has {}: encode the prompts "
                         "with UMT5-XXL",
                         network.text_width(), states.size(1)));
    padded.push_back(padded_text(states));
  };
  for (const auto& states : job.text.prompts) add(states);
  return padded;
}

std::int64_t place_of(const ExtraLatent& extra, std::int64_t frames) {
  const auto count = extra.samples.size(2);
  const auto index = extra.index < 0 ? frames + extra.index : extra.index;
  return std::max<std::int64_t>(0, std::min(index, frames - count));
}

std::vector<std::int64_t> given_frames(const SamplerJob& job, std::int64_t frames) {
  std::vector<std::int64_t> given;
  for (const auto& extra : job.image.extra)
    for (std::int64_t i = 0; i < extra.samples.size(2); ++i)
      given.push_back(place_of(extra, frames) + i);
  return given;
}

StepPasses passes_at(const SamplerJob& job, const WanNetwork& network,
                     const std::vector<std::int64_t>& shape, double part) {
  const auto device = network.device();
  Pass pass;
  if (auto beside = beside_of(job, network, shape, part); beside.defined())
    pass.beside = beside.to(device);
  if (network.channels() == kSecondVae)
    if (auto given = given_frames(job, shape[2]); !given.empty()) {
      auto anew = at::ones({1, 1, shape[2], 1, 1});
      for (auto frame : given) anew.select(2, frame).zero_();
      pass.made_anew = anew.to(device);
    }
  if (network.takes_reference() && job.image.control && job.image.control->reference.defined())
    pass.reference = job.image.control->reference.select(2, 0).to(device, at::kFloat);
  add_vace(job, network, shape, part, pass);
  add_speech(job, network, shape[2], pass);
  StepPasses both{pass, pass};
  if (network.vision_width() > 0 && job.image.clip.positive.defined()) {
    both.positive.vision = job.image.clip.positive.to(device);
    both.negative.vision = job.image.clip.negative.defined() ? job.image.clip.negative.to(device)
                                                             : both.positive.vision;
  }
  return both;
}

bool is_shown(double start, double end, double part) {
  return (part >= start && part <= end) || (end > 0 && part == 0 && part >= start);
}

Pass in_window(const Pass& pass, const std::vector<std::int64_t>& window) {
  Pass part = pass;
  part.frames = window;
  auto take = [&](const Tensor& whole, std::int64_t dim) {
    auto frames = at::tensor(window, at::TensorOptions(at::kLong)).to(whole.device());
    return whole.index_select(dim, frames);
  };
  if (pass.beside.defined()) {
    part.beside = take(pass.beside, 2);
    part.beside.select(2, 0).copy_(pass.beside.select(2, 0));
  }
  if (pass.made_anew.defined()) {
    part.made_anew = take(pass.made_anew, 2);
    part.made_anew.select(2, 0).zero_();
  }
  if (pass.vace.defined()) part.vace = take(pass.vace, 3);
  if (pass.speech.defined()) part.speech = take(pass.speech, 1);
  return part;
}

}  // namespace distorch::nodes::wan_wrapper
