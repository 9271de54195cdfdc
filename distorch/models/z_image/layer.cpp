#include "distorch/models/z_image/layer.h"

#include <limits>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::z_image {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kEps = 1e-5;
constexpr double kHeadEps = std::numeric_limits<float>::epsilon();

/// In half precision what went beyond its range comes back to its edge.
Tensor within_range(Tensor x) {
  constexpr double kLargest = 65504;
  return x.scalar_type() == at::kHalf ? x.nan_to_num_(0.0, kLargest, -kLargest) : x;
}

}  // namespace

Layer::Layer(const Scope& s, const NextDitConfig& c, bool modulated)
    : block_(s),
      qkv_(s / "attention", {.in = c.width,
                             .heads = c.heads,
                             .kv_heads = c.kv_heads,
                             .head_width = c.head_width,
                             .bias = false,
                             .split = c.split_qkv}),
      out_(s / "attention" / "out", c.heads * c.head_width, c.width, /*bias=*/false),
      norm_q_(s / "attention" / "q_norm", c.head_width, kHeadEps),
      norm_k_(s / "attention" / "k_norm", c.head_width, kHeadEps),
      w1_(s / "feed_forward" / "w1", c.width, c.mlp_width, /*bias=*/false),
      w2_(s / "feed_forward" / "w2", c.mlp_width, c.width, /*bias=*/false),
      w3_(s / "feed_forward" / "w3", c.width, c.mlp_width, /*bias=*/false),
      attention_norm1_(s / "attention_norm1", c.width, kEps),
      attention_norm2_(s / "attention_norm2", c.width, kEps),
      ffn_norm1_(s / "ffn_norm1", c.width, kEps),
      ffn_norm2_(s / "ffn_norm2", c.width, kEps) {
  if (modulated)
    modulation_.emplace(s / "adaLN_modulation" / c.modulation_index(), c.embedded_width,
                        4 * c.width);
}

Tensor Layer::attend(const Tensor& x, const nn::RopeTable& rope) const {
  auto heads = qkv_(x);
  auto q = norm_q_.heads(heads.q, rope), k = norm_k_.heads(heads.k, rope);
  return attention_norm2_(within_range(out_(nn::attend(q, k, heads.v))));
}

Tensor Layer::feed_forward(const Tensor& x) const {
  auto gated = within_range(nn::swiglu_over(w1_(x), w3_(x)));
  return ffn_norm2_(within_range(w2_(gated)));
}

Tensor Layer::forward(const Tensor& x, const nn::RopeTable& rope, const Tensor& c) const {
  return block_.run1({x, rope.cos, rope.sin, c}, [this](const Tensors& in) {
    const nn::RopeTable at{in[1], in[2]};
    if (!modulation_) {
      auto y = attend(attention_norm1_(in[0]), at).add_(in[0]);
      return feed_forward(ffn_norm1_(y)).add_(y);
    }
    // Scale and gate of the attention, then of the feed-forward.
    auto mod = (*modulation_)(in[3]).unsqueeze(1).chunk(4, -1);
    auto y =
        nn::gated_add(in[0], mod[1].tanh(), attend(attention_norm1_(in[0]).mul_(mod[0] + 1), at));
    return nn::gated_add(y, mod[3].tanh(), feed_forward(ffn_norm1_(y).mul_(mod[2] + 1)));
  });
}

}  // namespace distorch::models::z_image
