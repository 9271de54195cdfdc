#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/device/device.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/mmaudio.h"
#include "distorch/nodes/one_call.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/video.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;
using graph::Value;
using models::mmaudio::Conditions;
using models::mmaudio::Features;
using models::mmaudio::Lengths;
using models::mmaudio::Network;

namespace {

constexpr double kFrames = 25;          // a second, that Synchformer looks at
constexpr std::int64_t kSegment = 16;   // frames that it looks at together
constexpr std::int64_t kPictures = 16;  // that CLIP looks at together: a bound for its memory

/// One pass of a part: planned, then computed on its device; on the CPU in float32. Undefined where
/// only plans are wanted.
template <class Part, class Forward>
Tensor passed(Call& call, Part& part, const Tensor& input, Forward forward) {
  const Tensor result = run_network(call, part, input, forward);
  return result.defined() ? result.to(at::kCPU, at::kFloat) : result;
}

/// [..., n] of length 1.
Tensor of_length_one(const Tensor& x) {
  const std::vector<std::int64_t> last = {-1};
  return x / at::linalg_vector_norm(x, 2, last, true).clamp_min(1e-12);
}

/// Numbers 0..1 as 8 bits have them, fractions cut off. (The pack wraps what bicubic takes beyond
/// them.)
Tensor as_bytes(const Tensor& x) { return (x * 255.0).clamp(0, 255).floor() / 255.0; }

/// A few frames at a time: those of a whole video may be large.
Tensor resized(const Tensor& frames, std::int64_t height, std::int64_t width) {
  if (frames.size(2) == height && frames.size(3) == width) return frames;
  std::vector<Tensor> made;
  for (const auto& some : frames.split(kPictures)) {
    throw_if_interrupted();
    made.push_back(at::_upsample_bicubic2d_aa(some.contiguous(), {height, width}, false));
  }
  return at::cat(made);
}

/// Frames [n, 3, H, W] as CLIP looks at them, their sides stretched: [n, 3, 384, 384].
Tensor for_clip(const Tensor& frames) {
  auto color = [](float r, float g, float b) { return at::tensor({r, g, b}).view({3, 1, 1}); };
  return (as_bytes(resized(frames, kMMAudioPixels, kMMAudioPixels)) -
          color(0.48145466f, 0.4578275f, 0.40821073f)) /
         color(0.26862954f, 0.26130258f, 0.27577711f);
}

/// Frames as Synchformer looks at them, cut around the middle, in stretches of 16 that begin 8 apart:
/// [S, 3, 16, side, side] -1..1.
Tensor for_synchformer(const Tensor& frames, std::int64_t side) {
  const auto height = frames.size(2), width = frames.size(3), shorter = std::min(height, width);
  auto x = resized(frames, side * height / shorter, side * width / shorter);
  auto middle = [side](std::int64_t size) {
    return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(size - side) / 2));
  };
  x = x.narrow(2, middle(x.size(2)), side).narrow(3, middle(x.size(3)), side);
  x = (as_bytes(x) - 0.5) / 0.5;
  return x.unfold(0, kSegment, kSegment / 2).permute({0, 1, 4, 2, 3}).contiguous();
}

/// A text between start and end, filled up with zeros or cut: [length] int64. Source: the tokenizer
/// of open_clip.
Tensor ids_of(const tokenizers::ClipBpe& words, const std::string& text, std::int64_t length) {
  using tokenizers::ClipBpe;
  std::vector<std::int64_t> ids = {ClipBpe::start_token};
  for (auto id : words.encode(text)) ids.push_back(id);
  ids.push_back(ClipBpe::end_token);
  if (static_cast<std::int64_t>(ids.size()) > length) {
    log::warn("MMAudio: a prompt has {} tokens, the first {} count", ids.size() - 2, length - 2);
    ids.resize(static_cast<std::size_t>(length));
    ids.back() = ClipBpe::end_token;
  }
  ids.resize(static_cast<std::size_t>(length), 0);
  return at::tensor(ids, at::kLong);
}

/// One sound, from what a call gives to its samples.
class Sounding {
 public:
  explicit Sounding(Call& call)
      : call_(call),
        engine_(call.context<streaming::Engine>()),
        device_(call.node_type().find_input("device") && call.has("device") ? call.text("device")
                                                                            : ""),
        model_(*call.get<MMAudioModel>("mmaudio_model").at(device_)),
        parts_(call.get<MMAudioFeatures>("feature_utils").at(device_)),
        config_(model_.network->config()),
        rows_(call.number("cfg") < 1.0 ? 1 : 2) {
    check_widths();
    read_frames();
    lengths_ = models::mmaudio::lengths_of(config_, seconds_);
    if (lengths_.sync < 1 || lengths_.clip < 1)
      throw Error(
          ErrorKind::Usage, call.place(),
          fmt::format("a sound takes at least {} seconds, or as many frames as {}, and {} "
                      "seconds are asked for{}",
                      static_cast<double>(kSegment) / kFrames, kSegment, seconds_,
                      frames_.defined() ? fmt::format(" of {} frames", frames_.size(0)) : ""));
  }

  Audio run() {
    const auto latent = sampled(features());
    auto mel = passed(call_, *parts_.decoder, latent,
                      [](const auto& network, const Tensor& x) { return network.decode(x); });
    const auto& vocoder = parts_.vocoder->network->config();
    if (!mel.defined()) mel = at::zeros({1, vocoder.bands, 2 * lengths_.latent});
    auto sound = passed(call_, *parts_.vocoder, mel,
                        [](const auto& network, const Tensor& x) { return network.sound(x); });
    if (!sound.defined()) sound = at::zeros({1, 1, mel.size(2) * vocoder.hop()});
    return {sound, static_cast<int>(config_.rate())};
  }

 private:
  void refuse(const std::string& file, const std::string& why) const {
    throw Error(ErrorKind::Usage, call_.place(),
                fmt::format("{} and {}: {}", file, name_of(model_), why));
  }
  template <class Part>
  static std::string name_of(const Part& part) {
    return part.weights->checkpoint().path();
  }

  void check_widths() const {
    auto check = [&](const auto& part, std::int64_t given, std::int64_t wanted, const char* what) {
      if (given != wanted)
        refuse(name_of(part), fmt::format("the first one gives {} of {} numbers, the second one "
                                          "takes {}: they do not go together",
                                          what, given, wanted));
    };
    check(*parts_.vision, parts_.vision->network->config().projection, config_.clip, "pictures");
    check(*parts_.text, parts_.text->network->config().width, config_.text, "tokens of a text");
    check(*parts_.synchformer, parts_.synchformer->network->config().width, config_.sync,
          "moments of a video");
    const auto decoded = parts_.decoder->network->config().latent;
    if (decoded != config_.latent)
      refuse(name_of(*parts_.decoder),
             fmt::format("the first one takes latents of {} numbers, the second one makes {}: 16k "
                         "goes with 20, 44k with 40",
                         decoded, config_.latent));
  }

  /// A video that is too short makes the sound shorter.
  void read_frames() {
    seconds_ = call_.number("duration");
    if (!std::isfinite(seconds_) || seconds_ > 3600)
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("'duration' is {} seconds: up to an hour can be", seconds_));
    if (!call_.has("images")) return;
    auto frames = match_channels(image_input(call_, "images"), 3).to(at::kFloat);
    frames_ = frames.permute({0, 3, 1, 2});
    const auto there = static_cast<double>(frames_.size(0)) / kFrames;
    if (frames_.size(0) >= static_cast<std::int64_t>(kFrames * seconds_)) return;
    log::warn("{}: {} frames are {:.2f} seconds at {} a second; the sound is as long",
              call_.place(), frames_.size(0), there, kFrames);
    seconds_ = there;
  }

  Tensor seen() {
    if (!frames_.defined() || call_.boolean("mask_away_clip")) return {};
    std::vector<Tensor> all;
    for (const auto& some : frames_.narrow(0, 0, lengths_.clip).split(kPictures)) {
      throw_if_interrupted();
      auto one =
          passed(call_, *parts_.vision,
                 engine_.plan_only() ? at::zeros({some.size(0), 3, kMMAudioPixels, kMMAudioPixels})
                                     : for_clip(some),
                 [](const auto& network, const Tensor& x) { return network.forward(x).embeds; });
      all.push_back(one.defined() ? one : at::ones({some.size(0), config_.clip}));
    }
    return of_length_one(at::cat(all)).unsqueeze(0);
  }

  Tensor moved() {
    if (!frames_.defined()) return {};
    const auto& shape = parts_.synchformer->network->config();
    const auto side = shape.pixels();
    const auto count = static_cast<std::int64_t>(kFrames * seconds_);
    auto segments = engine_.plan_only()
                        ? at::zeros({lengths_.sync / shape.moments, 3, kSegment, side, side})
                        : for_synchformer(frames_.narrow(0, 0, count), side);
    auto moments = passed(call_, *parts_.synchformer, segments,
                          [](const auto& network, const Tensor& x) { return network.forward(x); });
    if (!moments.defined()) return at::zeros({1, lengths_.sync, config_.sync});
    return moments.flatten(0, 1).unsqueeze(0);
  }

  Tensor read() {
    std::vector<Tensor> rows = {
        ids_of(*parts_.words, call_.text("prompt"), config_.tokens),
        ids_of(*parts_.words, call_.text("negative_prompt"), config_.tokens)};
    rows.resize(static_cast<std::size_t>(rows_));
    const auto all = at::stack(rows);
    auto states = passed(call_, *parts_.text, all, [&](const auto& network, const Tensor& ids) {
      return network.forward({all, {}, ids.device()}).hidden;
    });
    return states.defined() ? of_length_one(states)
                            : at::zeros({rows_, config_.tokens, config_.text});
  }

  Features features() {
    Features all;
    all.clip = seen();
    all.sync = moved();
    all.text = read();
    return all;
  }

  /// What the network will be called with, on the device "meta" or another.
  streaming::Profile profile(const Features& given, const RigDevice& compute) const {
    auto fresh = model_.make();
    return streaming::profile_model(
        *model_.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto blank = [device](const Tensor& like) {
            return like.defined() ? at::empty(like.sizes(), like.options().device(device)) : like;
          };
          auto conditions = fresh->conditions(
              {blank(given.clip), blank(given.sync), blank(given.text)}, lengths_);
          const auto numbers = at::TensorOptions(at::kFloat).device(device);
          fresh->flow(at::empty({rows_, lengths_.latent, config_.latent}, numbers),
                      at::empty({rows_}, numbers), conditions);
          fresh->scaled(at::empty({1, lengths_.latent, config_.latent}, numbers));
        });
  }

  /// Euler's steps from noise to a latent [1, n, numbers], in the autoencoder's scale.
  Tensor sampled(const Features& features) {
    const auto steps = call_.integer("steps");
    if (steps < 1 || steps > 10000)
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("'steps' is {}: 1 to 10000 can be", steps));
    streaming::RunNeeds needs;
    needs.key = fmt::format("sound {} x {} {} {} {} {}", rows_, lengths_.latent, lengths_.clip,
                            lengths_.sync, features.clip.defined(), features.sync.defined());
    needs.steps = static_cast<double>(steps);
    needs.profile = [&](const RigDevice& compute) { return profile(features, compute); };
    auto use = engine_.prepare(model_.weights, needs);
    const std::vector<std::int64_t> shape = {1, lengths_.latent, config_.latent};
    if (engine_.plan_only()) return at::zeros(shape);

    const auto device = device::to_torch(model_.weights->options().compute);
    auto there = [device](const Tensor& x) { return x.defined() ? x.to(device) : x; };
    const auto told = model_.network->conditions(
        {there(features.clip), there(features.sync), there(features.text)}, lengths_);
    auto generator = at::detail::createCPUGenerator(call_.seed("seed"));
    auto x = at::randn(shape, generator, at::TensorOptions(at::kFloat)).to(device);
    const auto times = at::linspace(0, 1, steps + 1, at::TensorOptions(at::kFloat));
    const auto cfg = call_.number("cfg");
    for (std::int64_t i = 0; i < steps; ++i) {
      throw_if_interrupted();
      const auto time = times[i].item<float>(), next = times[i + 1].item<float>();
      auto flow = step(x, time, told);
      auto followed = flow.narrow(0, 0, 1);
      if (rows_ == 2) followed = cfg * followed + (1 - cfg) * flow.narrow(0, 1, 1);
      x = x + (next - time) * followed;
      call_.progress(static_cast<double>(i + 1), static_cast<double>(steps));
    }
    return model_.network->scaled(x).to(at::kCPU);
  }

  /// What follows the prompt and what does not go through the network together.
  Tensor step(const Tensor& x, float time, const Conditions& told) {
    return model_.weights->step(
        {x.expand({rows_, -1, -1}).contiguous(), at::full({rows_}, time, x.options()), told.clip,
         told.sync, told.text, told.global},
        [this](const std::vector<Tensor>& in) {
          return model_.network->flow(in[0], in[1], {in[2], in[3], in[4], in[5]});
        });
  }

  Call& call_;
  streaming::Engine& engine_;
  std::string device_;
  LoadedMMAudio& model_;
  const MMAudioParts& parts_;
  const models::mmaudio::Config& config_;
  std::int64_t rows_;
  double seconds_ = 0;
  Tensor frames_;  // [n, 3, H, W]
  Lengths lengths_;
};

/// "force_offload" is not looked at: weights rest where they are until others need the room.
void run(Call& call) { call.out(0, Value::of("AUDIO", Sounding(call).run())); }

}  // namespace

void add_mmaudio_sampler_node(graph::Catalog& catalog) {
  graph::NodeType sampler{
      .name = "MMAudioSampler",
      .display_name = "MMAudio Sampler",
      .category = kMMAudioCategory,
      .description =
          "Makes sound for the frames of a video (25 a second), for a text, or for both.",
      .python_module = kMMAudioModule,
      .inputs =
          {link("mmaudio_model", "MMAUDIO_MODEL"), link("feature_utils", "MMAUDIO_FEATUREUTILS"),
           number("duration", {.def = 8, .step = 0.01, .tooltip = "Seconds of sound."}),
           integer("steps", {.def = 25, .step = 1}),
           number("cfg", {.def = 4.5,
                          .step = 0.1,
                          .tooltip = "How far the sound goes from the negative prompt; below 1 "
                                     "that is not asked."}),
           integer("seed", {.def = 0, .min = 0, .max = std::uint64_t{0xffffffffffffffff}}),
           text("prompt", {.def = "", .multiline = true}),
           text("negative_prompt", {.def = "", .multiline = true}),
           graph::boolean("mask_away_clip",
                          {.def = false,
                           .tooltip = "Of the frames only when things happen counts, not what "
                                      "they show."}),
           graph::boolean(
               "force_offload",
               {.def = true, .tooltip = "Weights rest wherever there is room, either way."}),
           graph::optional(link("images", "IMAGE"))},
      .outputs = {{"AUDIO", "audio"}},
      .run = run,
  };
  add_with_device(catalog, std::move(sampler));
}

}  // namespace distorch::nodes
