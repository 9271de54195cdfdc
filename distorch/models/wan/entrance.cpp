#include "distorch/models/wan/entrance.h"

#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

Entrance::Vision::Vision(const Scope& s, const Config& c)
    : tokens(s / "proj", c.vision_width, c.width) {
  if (c.vision_places > 0) places = s.weight("emb_pos", {1, c.vision_places, c.vision_width});
}

Tensor Entrance::Vision::operator()(Tensor states) const {
  states = states.to(tokens.dtype());
  if (places.declared()) {
    auto all = nn::patched(places).to(states.scalar_type());
    auto count = std::min(states.size(1), all.size(1));
    states = states.narrow(1, 0, count) + all.narrow(1, 0, count);
  }
  return tokens(states);
}

Entrance::Entrance(const Scope& s, const Config& c)
    : block_(s),
      patch_((s / "patch_embedding").weight("weight", {c.width, c.in_channels, 1, kPatch, kPatch})),
      patch_bias_((s / "patch_embedding").weight("bias", {c.width})),
      text1_(s / "text_embedding" / 0, c.text_width, c.width),
      text2_(s / "text_embedding" / 2, c.width, c.width),
      time1_(s / "time_embedding" / 0, c.sinusoids, c.width),
      time2_(s / "time_embedding" / 2, c.width, c.width),
      projection_(s / "time_projection" / 1, c.width, 6 * c.width),
      sinusoids_(c.sinusoids) {
  if (c.vision_width > 0) vision_.emplace(s / "img_emb", c);
  if (c.reference_channels > 0) {
    auto place = s / "ref_conv";
    reference_ = place.weight("weight", {c.width, c.reference_channels, kPatch, kPatch});
    reference_bias_ = place.weight("bias", {c.width});
  }
}

Entrance::Result Entrance::forward(const Tensor& tokens, const Tensor& timesteps,
                                   const Tensor& context, const Tensor& seen,
                                   const Tensor& before) const {
  auto out = block_.run({tokens, timesteps, context, seen, before}, [this](const Tensors& in) {
    auto dtype = time1_.dtype();
    auto x = nn::linear(in[0].to(dtype), patch_, patch_bias_);
    if (in[4].defined())
      x = at::cat({nn::linear(in[4].to(dtype), reference_, reference_bias_), x}, 1);
    auto waves = nn::timestep_embedding(in[1].to(at::kFloat).flatten(), sinusoids_).to(dtype);
    auto time = time2_(nn::silu_over(time1_(waves))).unflatten(0, in[1].sizes());
    auto text = text2_(text1_.gelu_tanh(in[2].to(dtype)));
    Tensors made = {x, time, projection_(nn::silu(time)), text};
    if (in[3].defined()) made.push_back((*vision_)(in[3]));
    return made;
  });
  return {out[0], out[1], out[2], out[3], seen.defined() ? out[4] : Tensor()};
}

}  // namespace distorch::models::wan
