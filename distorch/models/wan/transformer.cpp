#include "distorch/models/wan/transformer.h"

#include <fmt/format.h>

#include "distorch/models/wan/block.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

InputSpecs specs_of(const Config& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  auto batch = Extent::batch(), any = Extent::any();
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
  specs.push_back({.name = "subjects",
                   .meaning = "frames of subjects",
                   .shape = {batch, Extent::number(c.in_channels), any, any, any},
                   .optional = true});
  specs.push_back({.name = "denoise_mask",
                   .meaning = "noise mask",
                   .shape = {batch, any, any, any, any},
                   .optional = true});
  return specs;
}

/// What a picture encoder saw, in the blocks' width.
struct Vision {
  Vision(const Scope& s, const Config& c)
      : norm_in(s / "proj" / 0, c.vision_width),
        first(s / "proj" / 1, c.vision_width, c.vision_width),
        second(s / "proj" / 3, c.vision_width, c.width),
        norm_out(s / "proj" / 4, c.width) {
    if (c.vision_places > 0) places = s.weight("emb_pos", {1, c.vision_places, c.vision_width});
  }

  Tensor operator()(Tensor states) const {
    states = states.to(first.dtype());
    if (places.declared()) {
      auto all = nn::patched(places).to(states.scalar_type());
      auto count = std::min(states.size(1), all.size(1));
      states = states.narrow(1, 0, count) + all.narrow(1, 0, count);
    }
    return norm_out(second(nn::gelu(first(norm_in(states)))));
  }

  nn::LayerNorm norm_in;
  nn::Linear first, second;
  nn::LayerNorm norm_out;
  weights::Weight places;
};

/// Everything before the blocks. One weights::Block.
struct Entrance {
  struct Result {
    Tensor tokens, time, parts, text, vision;
  };

  Entrance(const Scope& s, const Config& c)
      : block(s),
        patch(
            (s / "patch_embedding").weight("weight", {c.width, c.in_channels, 1, kPatch, kPatch})),
        patch_bias((s / "patch_embedding").weight("bias", {c.width})),
        text1(s / "text_embedding" / 0, c.text_width, c.width),
        text2(s / "text_embedding" / 2, c.width, c.width),
        time1(s / "time_embedding" / 0, c.sinusoids, c.width),
        time2(s / "time_embedding" / 2, c.width, c.width),
        projection(s / "time_projection" / 1, c.width, 6 * c.width),
        sinusoids(c.sinusoids) {
    if (c.vision_width > 0) vision.emplace(s / "img_emb", c);
    if (c.reference_channels > 0) {
      auto place = s / "ref_conv";
      reference = place.weight("weight", {c.width, c.reference_channels, kPatch, kPatch});
      reference_bias = place.weight("bias", {c.width});
    }
  }

  /// timesteps [B, 1 or T]; `seen` and `before` may be undefined.
  Result forward(const Tensor& tokens, const Tensor& timesteps, const Tensor& context,
                 const Tensor& seen, const Tensor& before) const {
    auto out = block.run({tokens, timesteps, context, seen, before}, [this](const Tensors& in) {
      auto dtype = time1.dtype();
      auto x = nn::linear(in[0].to(dtype), patch, patch_bias);
      if (in[4].defined())
        x = at::cat({nn::linear(in[4].to(dtype), reference, reference_bias), x}, 1);
      auto waves = nn::timestep_embedding(in[1].to(at::kFloat).flatten(), sinusoids).to(dtype);
      auto time = time2(nn::silu_over(time1(waves))).unflatten(0, in[1].sizes());
      auto text = text2(nn::gelu_tanh_over(text1(in[2].to(dtype))));
      Tensors made = {x, time, projection(nn::silu(time)), text};
      if (in[3].defined()) made.push_back((*vision)(in[3]));
      return made;
    });
    return {out[0], out[1], out[2], out[3], seen.defined() ? out[4] : Tensor()};
  }

  weights::Block block;
  weights::Weight patch, patch_bias;
  nn::Linear text1, text2, time1, time2, projection;
  std::int64_t sinusoids;
  std::optional<Vision> vision;
  weights::Weight reference, reference_bias;
};

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
    for (std::int64_t i = 0; i < c.layers; ++i)
      blocks.emplace_back((root / "blocks" / i).block(), c);
    out.emplace(root.block("out"), c);
  }

  Entrance in;
  std::vector<VideoBlock> blocks;
  std::optional<Exit> out;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Transformer::~Transformer() = default;

Tensor Transformer::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs);
  const auto& x = inputs["x"];
  auto video = inputs["concat"].defined() ? at::cat({x, inputs["concat"].to(at::kFloat)}, 1) : x;
  if (const auto& subjects = inputs["subjects"]; subjects.defined())
    video = at::cat({video, subjects.to(video.scalar_type())}, 2);
  const auto& reference = inputs["reference"];
  auto before = reference.defined() ? to_tokens(reference.unsqueeze(2)) : Tensor();
  auto [tokens, time, parts, text, vision] = parts_->in.forward(
      to_tokens(video), timesteps_of(inputs), inputs["context"], inputs["vision"], before);
  BlockContext context{
      parts,
      nn::rope_table(positions(video.sizes(), before.defined() ? 1 : 0, x.device()), Config::axes(),
                     10000.0),
      text, vision};
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i)
    if (patches.skipped.count(fmt::format("double_blocks.{}", i)) == 0)
      tokens = parts_->blocks[i].forward(tokens, context);
  auto result = parts_->out->forward(tokens, time);
  if (before.defined()) result = result.narrow(1, before.size(1), result.size(1) - before.size(1));
  return to_latent(result, video.sizes()).narrow(2, 0, x.size(2));
}

}  // namespace distorch::models::wan
