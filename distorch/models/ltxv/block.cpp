#include "distorch/models/ltxv/block.h"

#include <cmath>
#include <numbers>

#include "distorch/device/token_ops.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::ltxv {

using at::Tensor;
using weights::Tensors;

namespace {

constexpr double kNormEps = 1e-6, kHeadEps = 1e-5;

Tensor modulated(const Tensor& x, const Tensor& shift, const Tensor& scale) {
  return at::addcmul(shift, device::rms_norm(x, {}, kNormEps), scale + 1);
}

}  // namespace

VideoBlock::Attention::Attention(const weights::Scope& s, std::int64_t width)
    : q_norm(s / "q_norm", width, kHeadEps),
      k_norm(s / "k_norm", width, kHeadEps),
      q(s / "to_q", width, width),
      k(s / "to_k", width, width),
      v(s / "to_v", width, width),
      out(s / "to_out" / 0, width, width) {}

VideoBlock::VideoBlock(const weights::Scope& s, const Config& c)
    : heads_(c.heads),
      block_(s),
      modulation_(s.weight("scale_shift_table", {6, c.width})),
      self_(s / "attn1", c.width),
      cross_(s / "attn2", c.width),
      mlp_in_(s / "ff" / "net" / 0 / "proj", c.width, c.mlp_width),
      mlp_out_(s / "ff" / "net" / 2, c.mlp_width, c.width) {}

Tensor VideoBlock::self_attended(const Tensor& x, const nn::RopeTable& positions) const {
  // Heads lie one behind the other as if each were a token, as each has angles of its own.
  auto turned = [&](const Tensor& t) {
    auto heads = t.view({t.size(0), t.size(1) * heads_, 1, -1});
    return nn::apply_rope(heads, positions).view({t.size(0), t.size(1), heads_, -1});
  };
  auto q = turned(self_.q_norm(self_.q(x))), k = turned(self_.k_norm(self_.k(x)));
  return nn::attend(q, k, self_.v(x).unflatten(-1, {heads_, -1}));
}

Tensor VideoBlock::text_attended(const Tensor& x, const BlockContext& context) const {
  auto q = cross_.q_norm(cross_.q(x)), k = cross_.k_norm(cross_.k(context.text));
  return cross_.out(nn::attention(q, k, cross_.v(context.text),
                                  {.heads = heads_, .causal = false, .mask = context.mask}));
}

Tensor VideoBlock::run(const Tensor& x, const BlockContext& context, bool looks_around) const {
  auto dtype = mlp_in_.dtype();
  auto all = context.time.to(dtype).unflatten(-1, {6, -1}) + nn::patched(modulation_).to(dtype);
  std::vector<Tensor> part;
  for (const auto& one : all.unbind(2)) part.push_back(of_level(one));
  auto rows = [&](const Tensor& tokens) { return by_level(tokens, all.size(1)); };
  auto add = [&](const Tensor& to, const Tensor& gate, const Tensor& what) {
    return nn::gated_add(rows(to), gate, rows(what)).view(x.sizes());
  };
  auto seen = modulated(rows(x), part[0], part[1]).view(x.sizes());
  auto attended = looks_around ? self_attended(seen, context.positions) : self_.v(seen);
  auto y = add(x, part[2], self_.out(attended));
  y = y + text_attended(y, context);
  const auto normed = modulated(rows(y), part[3], part[4]).view(x.sizes());
  return add(y, part[5], nn::gelu_mlp(mlp_in_, mlp_out_, normed));
}

Tensor VideoBlock::forward(const Tensor& x, const BlockContext& context, bool looks_around) const {
  const auto& c = context;
  return block_.run1({x, c.time, c.positions.cos, c.positions.sin, c.text, c.mask},
                     [&](const Tensors& in) {
                       return run(in[0], {in[1], {in[2], in[3]}, in[4], in[5]}, looks_around);
                     });
}

nn::RopeTable positions_table(const Tensor& places, const Config& config) {
  constexpr double kTheta = 10000.0;
  // Where a clip of 20 seconds and 2048 x 2048 pixels ends, of which places are fractions.
  constexpr double kSeconds = 20, kPixels = 2048;
  const auto pairs = config.width / 2, each = config.width / 6;
  auto options = places.options().dtype(at::kFloat);
  auto turns =
      at::pow(at::Scalar(kTheta), at::linspace(0.0, 1.0, each, options)) * std::numbers::pi / 2;
  auto fractions = at::stack({places.select(-1, 0) / kSeconds, places.select(-1, 1) / kPixels,
                              places.select(-1, 2) / kPixels},
                             -1);
  // A row has the first angle of each axis, then the second of each, ...
  auto angles = (turns * (fractions.unsqueeze(-1) * 2 - 1)).transpose(-1, -2).flatten(2);
  auto of_heads = [&](const Tensor& values, double still) {
    auto row = at::constant_pad_nd(values, {pairs - 3 * each, 0}, still);
    return row.unflatten(-1, {config.heads, -1}).flatten(1, 2).contiguous();
  };
  return {of_heads(angles.cos(), 1), of_heads(angles.sin(), 0)};
}

}  // namespace distorch::models::ltxv
