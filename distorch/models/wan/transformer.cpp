#include "distorch/models/wan/transformer.h"

#include <fmt/format.h>

#include <numbers>

#include "distorch/base/error.h"
#include "distorch/models/reference_cache.h"
#include "distorch/models/wan/block.h"
#include "distorch/models/wan/call_options.h"
#include "distorch/models/wan/camera.h"
#include "distorch/models/wan/entrance.h"
#include "distorch/models/wan/face.h"
#include "distorch/models/wan/sound.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/models/wan/vace.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

using Kind = InputSpec::Kind;
using Source = InputSpec::Source;

/// A latent or pictures [B, channels, T, h, w] of any size, where there are any.
InputSpec frames_spec(const char* name, const char* meaning, std::int64_t channels) {
  auto any = Extent::any();
  return {.name = name,
          .meaning = meaning,
          .shape = {Extent::batch(), Extent::number(channels), any, any, any},
          .optional = true};
}

/// What only some kinds of the model take.
void add_special_specs(const Config& c, InputSpecs& specs) {
  auto batch = Extent::batch(), any = Extent::any();
  if (c.vision_width > 0)
    specs.push_back({.name = "vision",
                     .meaning = "states of a picture encoder",
                     .shape = {batch, any, Extent::number(c.vision_width)},
                     .optional = true});
  if (c.reference_channels > 0)
    specs.push_back({.name = "reference",
                     .meaning = "reference picture",
                     .shape = {batch, Extent::number(c.reference_channels), any, any},
                     .optional = true});
  if (c.vace_layers > 0) {
    specs.push_back({.name = "vace",
                     .meaning = "control frames",
                     .shape = {batch, any, Extent::number(c.vace_channels), Extent::cells()}});
    specs.push_back(
        {.name = "vace_strength", .meaning = "strengths of control frames", .shape = {batch, any}});
  }
  if (c.camera_channels > 0)
    specs.push_back(frames_spec("camera", "camera rays", c.camera_channels));
  if (c.face_layers > 0) {
    specs.push_back(frames_spec("pose", "pose video", c.out_channels));
    specs.push_back(frames_spec("face", "face video", 3));
  }
  if (c.speech_width > 0)
    specs.push_back({.name = "speech",
                     .meaning = "speech of each latent frame",
                     .shape = {batch, any, any, Extent::number(c.speech_width)},
                     .optional = true});
  if (c.audio_layers > 0) {
    specs.push_back(
        {.name = "audio",
         .meaning = "states of an audio encoder",
         .shape = {batch, Extent::number(c.audio_layers), Extent::number(c.audio_width), any},
         .optional = true});
    specs.push_back(frames_spec("reference_frames", "reference picture", c.in_channels));
    specs.push_back(frames_spec("motion", "earlier frames", c.out_channels));
    specs.push_back(frames_spec("control", "control video", c.out_channels));
  }
}

InputSpecs specs_of(const Config& c) {
  auto batch = Extent::batch();
  auto latent = Extent::number(c.out_channels);
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, latent, Extent::cells()},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "timestep", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), Extent::number(c.text_width)}},
  };
  if (auto beside = c.in_channels - c.out_channels; beside > 0)
    specs.push_back({.name = "concat",
                     .meaning = "what is given beside the latent",
                     .kind = Kind::NoiseShape,
                     .shape = {batch, Extent::number(beside), Extent::cells()}});
  add_special_specs(c, specs);
  specs.push_back(frames_spec("subjects", "frames of subjects", c.in_channels));
  auto any = Extent::any();
  specs.push_back({.name = "denoise_mask",
                   .meaning = "noise mask",
                   .shape = {batch, any, any, any, any},
                   .optional = true});
  specs.push_back({.name = kChange,
                   .meaning = "change by all layers",
                   .shape = {batch, any, Extent::number(c.width)},
                   .optional = true,
                   .source = Source::Sampler});
  for (const char* name : {kResiduals, kSpreadResiduals})
    specs.push_back({.name = name,
                     .meaning = "residuals of a control network",
                     .shape = {any, any, any, Extent::number(c.width)},
                     // What models compute in where memory is scarce: plans count it.
                     .dtype = at::kBFloat16,
                     .optional = true,
                     .source = Source::Control});
  return specs;
}

/// Everything behind the blocks. One weights::Block.
struct Exit {
  Exit(const Scope& s, const Config& c)
      : block(s),
        modulation((s / "head").weight("modulation", {1, 2, c.width})),
        out(s / "head" / "head", c.width, c.out_channels * kPatch * kPatch) {}

  /// tokens [B, L, width], time [B, 1 or T, width] -> [B, L, 4 · channels] float32.
  Tensor forward(const Tensor& tokens, const Tensor& time) const {
    return block.run1({tokens, time}, [this](const Tensors& in) {
      auto dtype = out.dtype();
      auto both = in[1].to(dtype).unsqueeze(2) + nn::patched(modulation).to(dtype);
      auto length = in[0].size(1);
      auto shift = by_token(both.select(2, 0), length), scale = by_token(both.select(2, 1), length);
      return out(nn::modulated_norm(in[0], shift, scale)).to(at::kFloat);
    });
  }

  weights::Block block;
  weights::Weight modulation;
  nn::Linear out;
};

/// Where tokens are, with the call's frequency of time in place of the trained one.
nn::RopeTable turned(const Tensor& places, const Inputs& inputs, std::int64_t frames) {
  auto table = nn::rope_table(places, Config::axes(), 10000.0);
  const auto index = static_cast<std::int64_t>(inputs.number(kRiflex, 0));
  if (index < 1 || index > Config::axes().front() / 2) return table;
  constexpr double part_of_circle = 0.9;
  auto angle = places.select(-1, 0).to(at::kDouble) *
               (part_of_circle * 2 * std::numbers::pi / static_cast<double>(frames));
  table.cos.select(-1, index - 1).copy_(angle.cos());
  table.sin.select(-1, index - 1).copy_(angle.sin());
  return table;
}

/// A noise level for each frame: the timestep [B] times how much of the frame is made anew.
Tensor timesteps_of(const Inputs& inputs) {
  const auto& timestep = inputs["timestep"];
  const auto& mask = inputs["denoise_mask"];
  if (!mask.defined()) return timestep.unsqueeze(1);
  return mask.to(at::kFloat).mean({1, 3, 4}) * timestep.unsqueeze(1);
}

}  // namespace

struct Transformer::Parts {
  Parts(const Scope& root, const Config& c) : in(root.block("in"), c) {
    if (c.camera_channels > 0) camera.emplace((root / "control_adapter").block("camera"), c);
    for (std::int64_t i = 0; i < c.layers; ++i)
      blocks.emplace_back((root / "blocks" / i).block(), c);
    if (c.vace_layers > 0) vace.emplace(root, c);
    if (c.face_layers > 0) animate.emplace(root, c);
    if (c.audio_layers > 0) sound.emplace(root, c);
    out.emplace(root.block("out"), c);
  }

  Entrance in;
  std::optional<CameraAdapter> camera;
  std::vector<VideoBlock> blocks;
  std::optional<Vace> vace;
  std::optional<Animate> animate;
  std::optional<Sound> sound;
  std::optional<Exit> out;
};

/// One call's way through the layers.
class Transformer::Call {
 public:
  Call(const Parts& parts, const Inputs& inputs)
      : parts_(parts), inputs_(inputs), video_(video_of(inputs)) {}

  Tensor run(const Patches& patches) {
    begin();
    if (const double what = inputs_.number(kEntrance, 0); what != 0) return entrance(what);
    // Only who asks for the change pays for the memory of where it begins.
    const bool keeps_change = inputs_.number(kKeepChange, 0) != 0;
    const auto before = keeps_change ? tokens_ : Tensor();
    if (const auto& change = inputs_[kChange]; change.defined())
      tokens_ = tokens_ + change.to(tokens_.scalar_type());
    else
      run_layers(patches);
    auto result = parts_.out->forward(tokens_, time_);
    auto prediction = to_latent(result.narrow(1, before_, count_), video_.sizes())
                          .narrow(2, 0, inputs_["x"].size(2));
    if (!keeps_change) return prediction;
    KeptReferences kept(1, tokens_.sizes(), tokens_.options(), prediction.sizes());
    kept.keep(0, tokens_ - before);
    return kept.packed(prediction);
  }

 private:
  void run_layers(const Patches& patches) {
    for (std::size_t i = 0; i < parts_.blocks.size(); ++i) {
      const bool skipped = patches.skipped.count(fmt::format("double_blocks.{}", i)) != 0;
      const auto layer = static_cast<std::int64_t>(i);
      if (!skipped) tokens_ = parts_.blocks[i].forward(tokens_, context_);
      after(layer);
      if (skipped) continue;
      add_residual(inputs_[kResiduals], layer, 1);
      add_residual(inputs_[kSpreadResiduals], layer,
                   static_cast<std::int64_t>(inputs_.number(kSpreadEvery, 1)));
    }
  }

  /// What a control network adds behind this layer, of residuals behind every `every`-th one.
  void add_residual(const Tensor& residuals, std::int64_t layer, std::int64_t every) {
    if (!residuals.defined() || layer % every != 0 || layer / every >= residuals.size(0)) return;
    const auto own = residuals.select(0, layer / every).to(tokens_.scalar_type());
    if (tokens_.size(1) == count_) {
      tokens_ = tokens_ + own;
      return;
    }
    tokens_ = tokens_.clone();  // a reference's tokens stay as they are
    tokens_.narrow(1, before_, count_).add_(own);
  }

  Tensor entrance(double what) const {
    if (what == kTokens) return tokens_.to(at::kFloat).flatten();
    return at::cat({time_.to(at::kFloat).flatten(), context_.time.to(at::kFloat).flatten()});
  }

  static Tensor video_of(const Inputs& inputs) {
    const auto& x = inputs["x"];
    auto video = inputs["concat"].defined() ? at::cat({x, inputs["concat"].to(at::kFloat)}, 1) : x;
    if (const auto& subjects = inputs["subjects"]; subjects.defined())
      video = at::cat({video, subjects.to(video.scalar_type())}, 2);
    return video;
  }

  void begin() {
    auto tokens = to_tokens(video_), times = timesteps_of(inputs_);
    count_ = tokens.size(1);
    Tensor before;
    if (const auto& reference = inputs_["reference"]; reference.defined()) {
      before = to_tokens(reference.unsqueeze(2));
      before_ = before.size(1);
    }
    auto places = positions(video_.sizes(), before.defined() ? 1 : 0, video_.device());
    if (parts_.sound) add_references(tokens, times, places);
    auto made = parts_.in.forward(tokens, times, inputs_["context"], inputs_["vision"], before);
    tokens_ = made.tokens;
    time_ = made.time;
    if (parts_.sound) add_sound(places);
    context_ = {made.parts, turned(places, inputs_, video_.size(2)), made.text, made.vision};
    context_.enhance = inputs_.number(kEnhance, 0);
    context_.speech = inputs_["speech"];
    context_.speech_scale = inputs_.number(kSpeechScale, 1);
    check_speech();
    context_.prompts = static_cast<std::int64_t>(inputs_.number(kPrompts, 1));
    if (context_.enhance != 0 || context_.prompts > 1) context_.frames = video_.size(2);
    begin_others();
  }

  void check_speech() const {
    if (!context_.speech.defined()) return;
    if (before_ > 0)
      throw Error(ErrorKind::Shape, "speech",
                  "is not heard where a reference picture stands before the first frame: leave one "
                  "of both out");
    if (context_.speech.size(1) != video_.size(2))
      throw Error(ErrorKind::Shape, "speech",
                  fmt::format("is that of {} latent frames, and the video has {}",
                              context_.speech.size(1), video_.size(2)));
  }

  void begin_others() {
    if (parts_.camera && inputs_["camera"].defined())
      tokens_ = tokens_ + parts_.camera->forward(inputs_["camera"], video_.sizes());
    if (parts_.vace)
      controls_ =
          parts_.vace->begin(tokens_, inputs_["vace"], inputs_["vace_strength"], video_.sizes());
    if (!parts_.animate) return;
    tokens_ = parts_.animate->posed(tokens_, inputs_["pose"], video_.sizes());
    if (inputs_["face"].defined()) face_ = parts_.animate->face_of(inputs_["face"], video_.size(2));
  }

  /// Pictures behind the video that are without noise, and what the noise of earlier frames is.
  void add_references(Tensor& tokens, Tensor& times, Tensor& places) {
    auto frames = video_.size(2);
    times = times.expand({times.size(0), frames});
    auto clean = [&](std::int64_t count) {
      times = at::cat({times, at::zeros({times.size(0), count}, times.options())}, 1);
    };
    if (const auto& reference = inputs_["reference_frames"]; reference.defined()) {
      auto more = to_tokens(reference.to(at::kFloat));
      references_ = more.size(1);
      tokens = at::cat({tokens, more}, 1);
      constexpr std::int64_t away = 30, behind = 9;
      places = at::cat({places, positions(reference.sizes(), 0, video_.device(),
                                          std::max(away, frames + behind))},
                       1);
      clean(reference.size(2));
    }
    if (!inputs_["motion"].defined()) return;
    // Earlier frames come to one and a half frames' tokens.
    times = times.repeat_interleave(2, 1);
    clean(3);
  }

  void add_sound(Tensor& places) {
    auto video = parts_.sound->controlled(tokens_.narrow(1, 0, count_), inputs_["control"]);
    std::vector<Tensor> all = {video, tokens_.narrow(1, count_, references_)};
    std::int64_t motion = 0;
    if (const auto& earlier = inputs_["motion"]; earlier.defined()) {
      auto more = parts_.sound->motion(earlier.to(at::kFloat));
      motion = more.tokens.size(1);
      all.push_back(more.tokens);
      places = at::cat({places, more.positions}, 1);
    }
    tokens_ = parts_.sound->marked(at::cat(all, 1), {count_, references_, motion});
    audio_ = parts_.sound->hear(inputs_["audio"], video_.size(2));
  }

  void after(std::int64_t layer) {
    if (parts_.vace) tokens_ = parts_.vace->after(layer, tokens_, controls_, context_);
    if (parts_.animate) tokens_ = parts_.animate->after(layer, tokens_, face_);
    if (parts_.sound) tokens_ = parts_.sound->after(layer, tokens_, audio_, count_);
  }

  const Parts& parts_;
  const Inputs& inputs_;
  Tensor video_, tokens_, time_, face_;
  std::int64_t before_ = 0, count_ = 0, references_ = 0;  // tokens
  BlockContext context_;
  Vace::Run controls_;
  AudioEncoder::Tokens audio_;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Transformer::~Transformer() = default;

Tensor Transformer::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs);
  return Call(*parts_, inputs).run(patches);
}

}  // namespace distorch::models::wan
