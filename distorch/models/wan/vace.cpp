#include "distorch/models/wan/vace.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

VaceBlock::VaceBlock(const Scope& s, const Config& c, bool first)
    : block_(s), layer_(s, c), after_(s / "after_proj", c.width, c.width) {
  if (first) before_.emplace(s / "before_proj", c.width, c.width);
}

VaceBlock::State VaceBlock::forward(const State& state, const Tensor& start,
                                    const Tensor& strengths, const BlockContext& context) const {
  auto made =
      block_.run(context.with({state.x, state.contexts, strengths, start}), [&](const Tensors& in) {
        auto here = context.from(in, 4);
        auto x = in[0];
        Tensors next;
        for (std::int64_t n = 0; n < in[1].size(0); ++n) {
          auto seen = in[1][n];
          if (before_) seen = (*before_)(seen) + in[3];
          seen = layer_.run(seen, here);
          auto strength = in[2].select(1, n).to(x.scalar_type());
          x = x + after_(seen) * strength.view({-1, 1, 1});
          next.push_back(seen);
        }
        return Tensors{x, at::stack(next)};
      });
  return {made[0], made[1]};
}

namespace {

/// The video's own layers neither see pictures nor hear speech here.
Config with_text_alone(Config c) {
  c.vision_width = 0;
  c.speech_width = 0;
  return c;
}

}  // namespace

Vace::Vace(const Scope& root, const Config& c)
    : every_(std::max<std::int64_t>(1, c.layers / c.vace_layers)) {
  auto place = root.block("vace in");
  block_ = weights::Block(place);
  patch_ = (place / "vace_patch_embedding")
               .weight("weight", {c.width, c.vace_channels, 1, kPatch, kPatch});
  patch_bias_ = (place / "vace_patch_embedding").weight("bias", {c.width});
  for (std::int64_t i = 0; i < c.vace_layers; ++i)
    layers_.emplace_back((root / "vace_blocks" / i).block(), with_text_alone(c), i == 0);
}

Vace::Run Vace::begin(const Tensor& x, const Tensor& controls, const Tensor& strengths,
                      at::IntArrayRef latent) const {
  if (controls.sizes().slice(3) != latent.slice(2))
    throw Error(ErrorKind::Shape, "control frames",
                fmt::format("are of {} (frames, height, width) in the latent, and the video is of "
                            "{}: WanVaceToVideo gives both alike",
                            c10::str(controls.sizes().slice(3)), c10::str(latent.slice(2))));
  Tensors tokens;
  for (const auto& one : controls.unbind(1)) tokens.push_back(to_tokens(one));
  auto contexts = block_.run1({at::stack(tokens)}, [&](const Tensors& in) {
    return nn::linear(in[0].to(patch_.dtype()), patch_, patch_bias_);
  });
  return {x, contexts, strengths};
}

Tensor Vace::after(std::int64_t layer, const Tensor& x, Run& run,
                   const BlockContext& context) const {
  auto own = static_cast<std::size_t>(layer / every_);
  if (layer % every_ != 0 || own >= layers_.size()) return x;
  auto state = layers_[own].forward({x, run.contexts}, run.start, run.strengths, context);
  run.contexts = state.contexts;
  return state.x;
}

}  // namespace distorch::models::wan
