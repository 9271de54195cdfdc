#include "distorch/models/sd3/block.h"

#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::sd3 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

Attention::Attention(const Scope& s, const MmditConfig& c, bool with_output)
    : qkv_(s, {.in = c.width,
               .heads = c.heads(),
               .kv_heads = c.heads(),
               .head_width = kHeadWidth,
               .split = c.split_qkv}) {
  if (c.qk_norm) {
    norm_q_.emplace(s / "ln_q", kHeadWidth);
    norm_k_.emplace(s / "ln_k", kHeadWidth);
  }
  if (with_output) proj_.emplace(s / "proj", c.width, c.width);
}

nn::Qkv Attention::prepare(const Tensor& x) const {
  auto qkv = qkv_(x);
  if (norm_q_) {
    qkv.q = (*norm_q_)(qkv.q);
    qkv.k = (*norm_k_)(qkv.k);
  }
  return qkv;
}

namespace {

// shift, scale and gate of the attention, of the feed-forward, of the attention to itself.
std::int64_t modulations(const Stream::Kind& kind) { return kind.dual ? 9 : kind.last ? 2 : 6; }

}  // namespace

Stream::Stream(const Scope& s, const MmditConfig& c, const Kind& kind)
    : kind_(kind),
      modulation_(s / "adaLN_modulation" / 1, c.width, modulations(kind) * c.width),
      attn_(s / "attn", c, !kind.last) {
  if (kind.last) return;
  if (kind.dual) attn2_.emplace(s / "attn2", c, true);
  fc1_.emplace(s / "mlp" / "fc1", c.width, c.mlp_width);
  fc2_.emplace(s / "mlp" / "fc2", c.mlp_width, c.width);
}

Stream::Prepared Stream::prepare(const Tensor& x, const Tensor& c) const {
  Prepared result;
  result.mod = modulation_(c).unsqueeze(1).chunk(modulations(kind_), -1);
  auto& mod = result.mod;
  if (kind_.last && kind_.scale_first) std::swap(mod[0], mod[1]);
  result.joint = attn_.prepare(nn::modulated_norm(x, mod[0], mod[1]));
  if (attn2_) {
    auto own = attn2_->prepare(nn::modulated_norm(x, mod[6], mod[7]));
    result.own = attn2_->finish(nn::attend(own.q, own.k, own.v)).mul_(mod[8]);
  }
  return result;
}

Tensor Stream::finish(const Tensor& x, const Tensor& attended, const Prepared& from) const {
  const auto& mod = from.mod;
  auto y = nn::gated_add(x, mod[2], attn_.finish(attended));
  if (from.own.defined()) y.add_(from.own);
  auto wide = fc1_->gelu_tanh(nn::modulated_norm(y, mod[3], mod[4]));
  return nn::gated_add(y, mod[5], (*fc2_)(wide));
}

JointBlock::JointBlock(const Scope& s, const MmditConfig& c, bool dual, bool last)
    : block_(s),
      text_(s / "context_block", c, {.last = last, .scale_first = c.scale_first}),
      image_(s / "x_block", c, {.dual = dual}) {}

JointBlock::Tokens JointBlock::forward(const Tokens& x, const Tensor& c) const {
  auto out = block_.run({x.text, x.image, c}, [this](const Tensors& in) -> Tensors {
    const auto &text = in[0], &image = in[1];
    auto from_text = text_.prepare(text, in[2]), from_image = image_.prepare(image, in[2]);
    auto join = [](Tensor& a, Tensor& b) {
      auto both = at::cat({a, b}, 1);
      a = b = Tensor();
      return both;
    };
    auto q = join(from_text.joint.q, from_image.joint.q);
    auto k = join(from_text.joint.k, from_image.joint.k);
    auto v = join(from_text.joint.v, from_image.joint.v);
    auto attended = nn::attend(q, k, v);
    q = k = v = Tensor();
    auto of_text = attended.narrow(1, 0, text.size(1));
    auto of_image = attended.narrow(1, text.size(1), image.size(1));
    Tensors result = {image_.finish(image, of_image, from_image)};
    if (!text_.is_last()) result.push_back(text_.finish(text, of_text, from_text));
    return result;
  });
  return {out.size() > 1 ? out[1] : Tensor(), out[0]};
}

}  // namespace distorch::models::sd3
