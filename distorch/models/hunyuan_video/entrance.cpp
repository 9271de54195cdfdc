#include "distorch/models/hunyuan_video/entrance.h"

#include "distorch/models/joint_parts.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::hunyuan_video {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kLevelWidth = 256;  // of the embedding of a noise level
constexpr double kGuidanceSteps = 1000;    // by which guidance is multiplied
constexpr double kEps = 1e-6;

Tensor waves(const Tensor& level, at::ScalarType dtype) {
  return nn::timestep_embedding(level.to(at::kFloat), kLevelWidth).to(dtype);
}

}  // namespace

Tensor Embedder::operator()(const Tensor& x) const { return out_layer(nn::silu_over(in_layer(x))); }

Entrance::Entrance(const Scope& s, const Config& c)
    : block_(s),
      patch_(
          (s / "img_in" / "proj").weight("weight", {c.hidden, c.in_channels, 1, c.patch, c.patch})),
      patch_bias_((s / "img_in" / "proj").weight("bias", {c.hidden})),
      text_(s / "txt_in" / "input_embedder", c.text_width, c.hidden),
      time_(s / "time_in", kLevelWidth, c.hidden),
      text_time_(s / "txt_in" / "t_embedder", kLevelWidth, c.hidden),
      text_mean_(s / "txt_in" / "c_embedder", c.text_width, c.hidden) {
  if (c.vector_width > 0) vector_.emplace(s / "vector_in", c.vector_width, c.hidden);
  if (c.guidance) guidance_.emplace(s / "guidance_in", kLevelWidth, c.hidden);
}

/// Result::vec.
Tensor Entrance::vec(const EntranceInputs& in) const {
  const auto dtype = text_.dtype();
  auto vec = time_(waves(in.timestep, dtype)).unsqueeze(1);
  if (in.given.defined()) vec = at::cat({vec, time_(waves(in.given, dtype)).unsqueeze(1)}, 1);
  if (vector_ && in.vector.defined()) vec = vec + (*vector_)(in.vector.to(dtype)).unsqueeze(1);
  if (guidance_ && in.guidance.defined())
    vec = guided(vec, (*guidance_)(waves(in.guidance * kGuidanceSteps, dtype)), in.guides_given);
  return vec;
}

Tensors Entrance::levels(const Tensors& timesteps, const Tensor& vector,
                         const Tensor& guidance) const {
  return run_each(block_, timesteps, {vector, guidance},
                  [this](const Tensor& timestep, const Tensors& beside) {
                    return vec({.timestep = timestep, .vector = beside[0], .guidance = beside[1]});
                  });
}

Entrance::Result Entrance::made_of(const EntranceInputs& in) const {
  auto dtype = text_.dtype();
  Result r;
  r.img = nn::linear(in.tokens.to(dtype), patch_, patch_bias_);
  r.txt = text_(in.text.to(dtype));
  r.refining =
      text_time_(waves(in.timestep, dtype)) + text_mean_(in.text.to(at::kFloat).mean(1).to(dtype));
  r.vec = vec(in);
  return r;
}

/// vec [B, V, D] with the guidance [B, D]; of two levels the second one is that of given frames.
Tensor Entrance::guided(const Tensor& vec, const Tensor& guidance, bool given) {
  if (given || vec.size(1) == 1) return vec + guidance.unsqueeze(1);
  return at::cat({vec.narrow(1, 0, 1) + guidance.unsqueeze(1), vec.narrow(1, 1, 1)}, 1);
}

Entrance::Result Entrance::forward(const EntranceInputs& inputs) const {
  const auto& i = inputs;
  auto out = block_.run({i.tokens, i.timestep, i.given, i.text, i.vector, i.guidance},
                        [this, guides = i.guides_given](const Tensors& t) -> Tensors {
                          auto r = made_of({t[0], t[1], t[2], t[3], t[4], t[5], guides});
                          return {r.img, r.txt, r.vec, r.refining};
                        });
  return {out[0], out[1], out[2], out[3]};
}

RefinerBlock::RefinerBlock(const Scope& s, const Config& c)
    : block_(s),
      gates_(s / "adaLN_modulation" / 1, c.hidden, 2 * c.hidden),
      norm1_(s / "norm1", c.hidden, kEps),
      qkv_(s / "self_attn",
           {.in = c.hidden, .heads = c.heads(), .kv_heads = c.heads(), .head_width = c.head}),
      out_(s / "self_attn" / "proj", c.hidden, c.hidden),
      norm2_(s / "norm2", c.hidden, kEps),
      mlp_in_(s / "mlp" / 0, c.hidden, 4 * c.hidden),
      mlp_out_(s / "mlp" / 2, 4 * c.hidden, c.hidden) {}

Tensor RefinerBlock::forward(const Tensor& txt, const Tensor& refining, const Tensor& mask) const {
  return block_.run1({txt, refining, mask}, [this](const Tensors& in) {
    auto gates = gates_(nn::silu(in[1])).unsqueeze(1).chunk(2, -1);
    auto heads = qkv_(norm1_(in[0]));
    auto x = nn::gated_add(in[0], gates[0], out_(nn::attend(heads.q, heads.k, heads.v, in[2])));
    return nn::gated_add(x, gates[1], mlp_out_(nn::silu_over(mlp_in_(norm2_(x)))));
  });
}

}  // namespace distorch::models::hunyuan_video
