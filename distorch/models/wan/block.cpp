#include "distorch/models/wan/block.h"

#include <cmath>

#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Tensors;

namespace {

constexpr double kEpsilon = 1e-6;

/// By how much the result of self-attention is multiplied, [B, 1, 1], at least 1: the attention
/// that frames pay to others than themselves, times their number and a weight. Tokens are grouped
/// as they lie, `frames` neighbours at a time, as the wrapper does. q, k [B, L, H, D]. Source:
/// Enhance-A-Video (arXiv:2502.07508) as in ComfyUI-WanVideoWrapper, enhance_a_video/enhance.py.
Tensor enhancement(const Tensor& q, const Tensor& k, const BlockContext& context) {
  const auto frames = context.frames;
  auto grouped = [&](const Tensor& x) { return x.unflatten(1, {-1, frames}).transpose(2, 3); };
  auto scaled = grouped(q) * (1.0 / std::sqrt(static_cast<double>(q.size(-1))));
  auto shares = at::matmul(scaled, grouped(k).transpose(-2, -1)).to(at::kFloat).softmax(-1);
  auto others = shares.sum({-2, -1}) - shares.diagonal(0, -2, -1).sum(-1);
  auto mean = others.mean({1, 2}) / static_cast<double>(frames * frames - frames);
  return (mean * (static_cast<double>(frames) + context.enhance)).clamp_min(1.0).view({-1, 1, 1});
}

}  // namespace

Tensor by_token(const Tensor& x, std::int64_t tokens) {
  auto frames = x.size(1);
  if (frames == 1 || frames == tokens) return x;
  auto each = tokens / frames;
  if (each * frames == tokens) return x.repeat_interleave(each, 1);
  return x.repeat_interleave(each + 1, 1).narrow(1, 0, tokens);
}

Tensors BlockContext::with(Tensors inputs) const {
  for (const auto& one : {time, positions.cos, positions.sin, text, vision, speech})
    inputs.push_back(one);
  return inputs;
}

BlockContext BlockContext::from(const Tensors& inputs, std::size_t first) const {
  BlockContext here{inputs[first], positions, inputs[first + 3], inputs[first + 4], enhance,
                    prompts,       frames};
  here.positions.cos = inputs[first + 1];
  here.positions.sin = inputs[first + 2];
  here.speech = inputs[first + 5];
  here.speech_scale = speech_scale;
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

VideoBlock::Speech::Speech(const weights::Scope& s, const Config& c)
    : k(s / "k_proj", c.speech_width, c.width, false),
      v(s / "v_proj", c.speech_width, c.width, false) {}

VideoBlock::VideoBlock(const weights::Scope& s, const Config& c)
    : heads_(c.heads()),
      block_(s),
      modulation_(s.weight("modulation", {1, 6, c.width})),
      self_(s / "self_attn", c.width),
      cross_(s / "cross_attn", c.width),
      norm3_(c.norm_before_text
                 ? std::optional<nn::LayerNorm>(std::in_place, s / "norm3", c.width, kEpsilon)
                 : std::nullopt),
      mlp_in_(s / "ffn" / 0, c.width, c.mlp_width),
      mlp_out_(s / "ffn" / 2, c.mlp_width, c.width) {
  if (c.vision_width > 0) pictures_.emplace(s / "cross_attn", c.width);
  if (c.speech_width > 0) speech_.emplace(s / "cross_attn", c);
}

Tensor VideoBlock::self_attended(const Tensor& x, const BlockContext& context) const {
  auto split = [this](const Tensor& t) { return t.unflatten(-1, {heads_, -1}); };
  auto q = nn::apply_rope(split(self_.norm_q(self_.q(x))), context.positions);
  auto k = nn::apply_rope(split(self_.norm_k(self_.k(x))), context.positions);
  auto attended = self_.o(nn::attend(q, k, split(self_.v(x))));
  if (context.enhance == 0 || context.frames < 2 || x.size(1) % context.frames != 0)
    return attended;
  return attended * enhancement(q, k, context).to(attended.scalar_type());
}

Tensor VideoBlock::text_attended(const Tensor& q, const BlockContext& context) const {
  const nn::AttentionOptions options{.heads = heads_};
  auto k = cross_.norm_k(cross_.k(context.text)), v = cross_.v(context.text);
  const auto prompts = context.prompts;
  if (prompts < 2 || context.frames < prompts || q.size(1) % context.frames != 0)
    return nn::attention(q, k, v, options);
  const auto share = context.frames / prompts * (q.size(1) / context.frames);
  const auto rows = k.size(1) / prompts;
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i < prompts; ++i) {
    const auto first = i * share;
    const auto count = i + 1 == prompts ? q.size(1) - first : share;
    parts.push_back(nn::attention(q.narrow(1, first, count), k.narrow(1, i * rows, rows),
                                  v.narrow(1, i * rows, rows), options));
  }
  return at::cat(parts, 1);
}

Tensor VideoBlock::heard(const Tensor& q, const BlockContext& context) const {
  const auto frames = context.speech.size(0) * context.speech.size(1);
  auto speech = context.speech.flatten(0, 1).to(q.scalar_type());
  return nn::attention(q.reshape({frames, -1, q.size(2)}), speech_->k(speech), speech_->v(speech),
                       {.heads = heads_})
      .reshape(q.sizes());
}

Tensor VideoBlock::cross_attended(const Tensor& x, const BlockContext& context) const {
  auto q = cross_.norm_q(cross_.q(x));
  auto attended = text_attended(q, context);
  if (pictures_) {
    // Without a picture the text stands in its place.
    const auto& seen = context.vision.defined() ? context.vision : context.text;
    attended.add_(nn::attention(q, pictures_->norm_k(pictures_->k(seen)), pictures_->v(seen),
                                {.heads = heads_, .causal = false, .mask = {}}));
  }
  if (speech_ && context.speech.defined()) attended.add_(heard(q, context), context.speech_scale);
  return cross_.o(attended);
}

Tensor VideoBlock::run(const Tensor& x, const BlockContext& context) const {
  auto dtype = mlp_in_.dtype();
  auto all = context.time.to(dtype).unflatten(-1, {6, -1}) + nn::patched(modulation_).to(dtype);
  std::vector<Tensor> part;
  for (const auto& one : all.unbind(2)) part.push_back(by_token(one, x.size(1)));
  auto y =
      nn::gated_add(x, part[2], self_attended(nn::modulated_norm(x, part[0], part[1]), context));
  y = y + cross_attended(norm3_ ? (*norm3_)(y) : y, context);
  const auto made = nn::gelu_mlp(mlp_in_, mlp_out_, nn::modulated_norm(y, part[3], part[4]));
  return nn::gated_add(y, part[5], made);
}

Tensor VideoBlock::forward(const Tensor& x, const BlockContext& context) const {
  return block_.run1(context.with({x}),
                     [&](const Tensors& in) { return run(in[0], context.from(in, 1)); });
}

}  // namespace distorch::models::wan
