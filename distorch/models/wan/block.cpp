#include "distorch/models/wan/block.h"

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Tensors;

namespace {

constexpr double kEpsilon = 1e-6;

}  // namespace

Tensor by_token(const Tensor& x, std::int64_t tokens) {
  auto frames = x.size(1);
  if (frames == 1 || frames == tokens) return x;
  auto each = tokens / frames;
  if (each * frames == tokens) return x.repeat_interleave(each, 1);
  return x.repeat_interleave(each + 1, 1).narrow(1, 0, tokens);
}

Tensors BlockContext::with(Tensors inputs) const {
  for (const auto& one : {time, positions.cos, positions.sin, text, vision}) inputs.push_back(one);
  return inputs;
}

BlockContext BlockContext::from(const Tensors& inputs, std::size_t first) const {
  BlockContext here{inputs[first], positions, inputs[first + 3], inputs[first + 4]};
  here.positions.cos = inputs[first + 1];
  here.positions.sin = inputs[first + 2];
  return here;
}

VideoBlock::Attention::Attention(const weights::Scope& s, std::int64_t width)
    : q(s / "q", width, width),
      k(s / "k", width, width),
      v(s / "v", width, width),
      o(s / "o", width, width),
      norm_q(s / "norm_q", width, kEpsilon),
      norm_k(s / "norm_k", width, kEpsilon) {}

VideoBlock::Pictures::Pictures(const weights::Scope& s, std::int64_t width)
    : k(s / "k_img", width, width),
      v(s / "v_img", width, width),
      norm_k(s / "norm_k_img", width, kEpsilon) {}

VideoBlock::VideoBlock(const weights::Scope& s, const Config& c)
    : heads_(c.heads()),
      block_(s),
      modulation_(s.weight("modulation", {1, 6, c.width})),
      self_(s / "self_attn", c.width),
      cross_(s / "cross_attn", c.width),
      norm3_(s / "norm3", c.width, kEpsilon),
      mlp_in_(s / "ffn" / 0, c.width, c.mlp_width),
      mlp_out_(s / "ffn" / 2, c.mlp_width, c.width) {
  if (c.vision_width > 0) pictures_.emplace(s / "cross_attn", c.width);
}

Tensor VideoBlock::self_attended(const Tensor& x, const nn::RopeTable& positions) const {
  auto split = [this](const Tensor& t) { return t.unflatten(-1, {heads_, -1}); };
  auto q = nn::apply_rope(split(self_.norm_q(self_.q(x))), positions);
  auto k = nn::apply_rope(split(self_.norm_k(self_.k(x))), positions);
  return self_.o(nn::attend(q, k, split(self_.v(x))));
}

Tensor VideoBlock::cross_attended(const Tensor& x, const Tensor& text, const Tensor& vision) const {
  auto q = cross_.norm_q(cross_.q(x));
  const nn::AttentionOptions options{.heads = heads_};
  auto attended = nn::attention(q, cross_.norm_k(cross_.k(text)), cross_.v(text), options);
  if (pictures_) {
    // Without a picture the text stands in its place.
    const auto& seen = vision.defined() ? vision : text;
    attended.add_(
        nn::attention(q, pictures_->norm_k(pictures_->k(seen)), pictures_->v(seen), options));
  }
  return cross_.o(attended);
}

Tensor VideoBlock::run(const Tensor& x, const BlockContext& context) const {
  auto dtype = mlp_in_.dtype();
  auto all = context.time.to(dtype).unflatten(-1, {6, -1}) + nn::patched(modulation_).to(dtype);
  std::vector<Tensor> part;
  for (const auto& one : all.unbind(2)) part.push_back(by_token(one, x.size(1)));
  auto y = nn::gated_add(x, part[2],
                         self_attended(nn::modulated_norm(x, part[0], part[1]), context.positions));
  y = y + cross_attended(norm3_(y), context.text, context.vision);
  auto wide = nn::gelu_tanh_over(mlp_in_(nn::modulated_norm(y, part[3], part[4])));
  return nn::gated_add(y, part[5], mlp_out_(wide));
}

Tensor VideoBlock::forward(const Tensor& x, const BlockContext& context) const {
  return block_.run1(context.with({x}),
                     [&](const Tensors& in) { return run(in[0], context.from(in, 1)); });
}

}  // namespace distorch::models::wan
