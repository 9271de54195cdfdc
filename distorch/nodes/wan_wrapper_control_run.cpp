// How control networks run within the steps of WanVideoSampler. Source: ComfyUI-WanVideoWrapper,
// nodes_sampler.py and wanvideo/modules/model.py.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/models/wan/call_options.h"
#include "distorch/models/wan/control_net.h"
#include "distorch/models/wan/uni3c.h"
#include "distorch/nodes/wan_wrapper_passes.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using models::Inputs;
namespace wan = models::wan;

namespace {

[[noreturn]] void misfit(const WanControl& net, const std::string& sentence) {
  throw Error(ErrorKind::Shape, net.file.string(), sentence);
}

at::Device device_of(const WanControl& net) {
  return device::to_torch(net.loaded->weights->options().compute);
}

/// How often `by` begins in `size`.
std::int64_t parts_of(std::int64_t size, std::int64_t by) { return (size + by - 1) / by; }

std::int64_t tokens_of(const std::vector<std::int64_t>& latent) {
  return latent[2] * parts_of(latent[3], wan::kPatch) * parts_of(latent[4], wan::kPatch);
}

Tensor blank(std::vector<std::int64_t> shape) {
  return at::empty(shape, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
}

/// `whole` [.., .., T, h, w] with the frames of a window alone.
Tensor frames_of(const Tensor& whole, const std::vector<std::int64_t>& frames) {
  if (frames.empty()) return whole;
  return whole.index_select(2, at::tensor(frames, at::TensorOptions(at::kLong)).to(whole.device()));
}

void check_control_net(const FollowedVideo& video, const wan::ControlNetConfig& config,
                       const SamplerJob& job, const WanNetwork& network,
                       const std::vector<std::int64_t>& shape) {
  const auto model = job.model.file.filename().string();
  if (config.model_width != network.width() || config.latent_channels != network.channels())
    misfit(
        video.net,
        fmt::format("steers models of width {} with latents of {} channels, and {} is of width {} "
                    "with latents of {}",
                    config.model_width, config.latent_channels, model, network.width(),
                    network.channels()));
  if (config.layers.text_width != network.text_width())
    misfit(video.net, fmt::format("takes text of width {}, and {} takes some of {}",
                                  config.layers.text_width, model, network.text_width()));
  const auto& images = video.images;
  const std::vector<std::int64_t> given = {parts_of(parts_of(images.size(0), 2), 2),
                                           parts_of(images.size(1), config.pixels),
                                           parts_of(images.size(2), config.pixels)};
  if (at::IntArrayRef(given) != at::IntArrayRef(shape).slice(2))
    misfit(
        video.net,
        fmt::format("got {} control_images of {} x {} pixels for a video of {} frames of {} x {}: "
                    "resize them and give as many",
                    images.size(0), images.size(2), images.size(1), (shape[2] - 1) * 4 + 1,
                    shape[4] * config.pixels, shape[3] * config.pixels));
}

void check_uni3c(const RenderedVideo& video, const wan::Uni3CConfig& config, const SamplerJob& job,
                 const WanNetwork& network) {
  if (config.model_width != network.width() || config.time_width != network.width())
    misfit(video.net,
           fmt::format("steers models of width {}, and {} is of width {}", config.model_width,
                       job.model.file.filename().string(), network.width()));
  const auto& latent = video.latent;
  if (latent.dim() != 5 || latent.size(0) != 1 || latent.size(1) != config.render_channels)
    misfit(video.net,
           fmt::format("takes the latent of one rendered video of {} channels, and 'render_latent' "
                       "is {}: encode it with WanVideoEncode and the VAE of Wan 2.1",
                       config.render_channels, c10::str(latent.sizes())));
}

}  // namespace

ControlRun::ControlRun(const SamplerJob& job, const WanNetwork& network,
                       const std::vector<std::int64_t>& shape)
    : followed_(job.model.followed), rendered_(job.rendered) {
  if (followed_) {
    control_net_ = &dynamic_cast<const wan::ControlNet&>(*followed_->net.loaded->network);
    check_control_net(*followed_, control_net_->config(), job, network, shape);
  }
  if (!rendered_) return;
  uni3c_ = &dynamic_cast<const wan::Uni3C&>(*rendered_->net.loaded->network);
  check_uni3c(*rendered_, uni3c_->config(), job, network);
  const auto sizes = at::IntArrayRef(shape).slice(2);
  auto& latent = rendered_->latent;
  latent = latent.to(at::kFloat);
  if (latent.sizes().slice(2) != sizes) latent = at::upsample_trilinear3d(latent, sizes, false);
}

void ControlRun::add_shapes(Inputs& call, const std::vector<std::int64_t>& latent) const {
  if (rendered_)
    call.set(wan::kResiduals,
             blank({uni3c_->config().layers, 1, tokens_of(latent), uni3c_->config().model_width}));
  if (!followed_) return;
  call.set(wan::kSpreadResiduals, blank({control_net_->config().layers.layers, 1, tokens_of(latent),
                                         control_net_->config().model_width}));
  call.set_number(wan::kSpreadEvery, static_cast<double>(followed_->stride));
}

std::vector<streaming::Engine::Wanted> ControlRun::wanted(const std::vector<std::int64_t>& latent,
                                                          const Pass& pass, int steps) const {
  std::vector<streaming::Engine::Wanted> all;
  if (followed_) {
    const auto& config = control_net_->config();
    const auto rows = pass.made_anew.defined() ? latent[2] : 1;
    const Inputs call = {
        {"x", blank(latent)},
        {"timesteps", blank({1, rows})},
        {"context", blank({1, pass.prompt.size(1), config.layers.text_width})},
        {"guide", blank({1, config.encoder_widths.back(), latent[2], latent[3], latent[4]})}};
    const auto& images = followed_->images;
    const std::vector<std::int64_t> video = {1, config.encoder_widths.front(), images.size(0),
                                             images.size(1), images.size(2)};
    auto encode = [video](const models::Network& fresh, at::Device device) {
      dynamic_cast<const wan::ControlNet&>(fresh).encode(
          at::empty(video, at::TensorOptions().device(device).dtype(at::kFloat)));
    };
    all.push_back(wanted_for(*followed_->net.loaded, call, steps, {}, encode));
  }
  if (rendered_) {
    auto beside = [&](std::int64_t channels) {
      return blank({1, channels, latent[2], latent[3], latent[4]});
    };
    const Inputs call = {{"x", beside(wan::Uni3CConfig::kSeenChannels)},
                         {"render", beside(uni3c_->config().render_channels)},
                         {"time", blank({1, uni3c_->config().time_width})}};
    all.push_back(wanted_for(*rendered_->net.loaded, call, steps));
  }
  return all;
}

void ControlRun::tell(Pass& pass, double part, const Tensor& prompt) const {
  pass.followed =
      followed_ && followed_->strength != 0 && part >= followed_->start && part < followed_->end;
  pass.rendered =
      rendered_ && rendered_->strength != 0 && is_shown(rendered_->start, rendered_->end, part);
  if (followed_) pass.prompt = prompt.unsqueeze(0);
}

Tensor ControlRun::follow(const Tensor& x, float timestep, const Pass& pass) {
  const auto device = device_of(followed_->net);
  if (!guide_.defined()) {
    auto video = followed_->images.permute({3, 0, 1, 2}).unsqueeze(0).to(device) * 2.0 - 1.0;
    guide_ = control_net_->encode(video);
  }
  auto timesteps = at::full({1, 1}, timestep, at::TensorOptions(at::kFloat).device(device));
  if (pass.made_anew.defined()) timesteps = pass.made_anew.to(device).flatten(1) * timesteps;
  const Inputs call = {{"x", x.to(device)},
                       {"timesteps", timesteps},
                       {"context", pass.prompt.to(device, at::kFloat)},
                       {"guide", frames_of(guide_, pass.frames)}};
  return run_step(*followed_->net.loaded, call);
}

Tensor ControlRun::render(const Tensor& x, float timestep, const Pass& pass, WanNetwork& network) {
  const auto device = device_of(rendered_->net);
  constexpr auto channels = wan::Uni3CConfig::kSeenChannels;
  auto seen = pass.beside.defined() ? at::cat({x, pass.beside.to(x.device())}, 1) : x;
  if (const auto missing = channels - seen.size(1); missing > 0)
    seen = at::constant_pad_nd(seen, {0, 0, 0, 0, 0, 0, 0, missing});
  const auto time = network.times(x, timestep, pass).embedding.view({1, -1});
  const Inputs call = {{"x", seen.narrow(1, 0, channels).to(device)},
                       {"render", frames_of(rendered_->latent, pass.frames).to(device)},
                       {"time", time.to(device)}};
  return run_step(*rendered_->net.loaded, call);
}

void ControlRun::add_residuals(Inputs& call, const Tensor& x, float timestep, const Pass& pass,
                               WanNetwork& network) {
  auto add = [&](const char* name, Said& said, double strength, auto compute) {
    if (!said.residuals.defined() || !said.x.is_same(x) || said.timestep != timestep) {
      said = {};  // before others are made: they are large
      auto residuals = compute();
      if (strength != 1.0) residuals.mul_(strength);
      said = {x, timestep, residuals.to(network.device(), network.dtype())};
    }
    call.set(name, said.residuals);
  };
  if (pass.rendered)
    add(wan::kResiduals, render_said_, rendered_->strength,
        [&] { return render(x, timestep, pass, network); });
  if (!pass.followed) return;
  add(wan::kSpreadResiduals, follow_said_, followed_->strength,
      [&] { return follow(x, timestep, pass); });
  call.set_number(wan::kSpreadEvery, static_cast<double>(followed_->stride));
}

}  // namespace distorch::nodes::wan_wrapper
