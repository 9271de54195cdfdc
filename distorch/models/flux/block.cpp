#include "distorch/models/flux/block.h"

#include <utility>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::flux {
namespace {

using at::Tensor;
using weights::Scope;

constexpr double kNormEps = 1e-6;

/// The part of a table for `count` tokens from `first` on.
nn::RopeTable part_of(const nn::RopeTable& rope, std::int64_t first, std::int64_t count) {
  return {rope.cos.narrow(1, first, count), rope.sin.narrow(1, first, count), rope.halves};
}

/// The range of float16 is too small for some tokens.
Tensor within_range(const Tensor& x) {
  if (x.scalar_type() != at::kHalf) return x;
  constexpr double largest = 65504;
  return at::nan_to_num(x, 0.0, largest, -largest);
}

/// q, k and v that lie behind each other in the last dimension: [B, L, H, Dh] each.
std::vector<Tensor> split_heads(const Tensor& qkv, std::int64_t heads) {
  return qkv.unflatten(-1, {3, heads, -1}).unbind(2);
}

/// Gives q, k and v [B, L, H, Dh] one after the other, which are rows 0 .. 3 · width - 1 of a layer:
/// of one product or, of many tokens, each of its own, so that the layer's whole result never is.
template <typename Take>
void for_heads(const nn::Linear& layer, Tensor x, std::int64_t width, std::int64_t heads,
               const Take& take) {
  const bool plain = layer.is_plain(x);
  if (plain && x.size(0) * x.size(1) >= nn::kManyRows) {
    for (int i = 0; i < 3; ++i) take(i, layer.rows(i * width, width)(x).unflatten(-1, {heads, -1}));
    return;
  }
  auto parts = split_heads(plain ? layer.rows(0, 3 * width)(x) : layer(x), heads);
  x.reset();
  for (int i = 0; i < 3; ++i) take(i, parts[i]);
}

/// Attention of all tokens, and to what is known of references beside them.
Tensor attended_to(nn::Qkv heads, const Common& common, KeptHeads* kept) {
  auto& [q, k, v] = heads;
  if (kept) {
    auto first = k.size(1) - common.references;
    *kept = {k.narrow(1, first, common.references).contiguous(),
             v.narrow(1, first, common.references).contiguous()};
  }
  if (common.known.k.defined()) {
    k = at::cat({k, common.known.k}, 1);
    v = at::cat({v, common.known.v}, 1);
  }
  return common.attend ? common.attend(heads) : nn::attend(q, k, v, common.mask);
}

/// What a picture beside the text tells: the sum over its groups of tokens.
Tensor told_by(const KeptHeads& prompt, const Tensor& queries) {
  Tensor sum;
  for (std::int64_t group = 0; group < prompt.k.size(1); ++group) {
    auto told = nn::attend(queries, prompt.k.select(1, group), prompt.v.select(1, group));
    sum = sum.defined() ? sum.add_(told) : told;
  }
  return sum;
}

}  // namespace

Modulation::Modulation(const Scope& s, const Config& c, std::int64_t count, bool bias)
    : lin_(s / "lin", c.hidden, count * c.hidden, bias) {}

Tensor Modulation::operator()(const Tensor& vec) const { return lin_(nn::silu(vec)); }

Tensor spread(const Tensor& modulation, std::int64_t tokens, std::int64_t references) {
  if (modulation.size(1) == 1) return modulation;
  auto row = [&](std::int64_t which, std::int64_t count) {
    return modulation.narrow(1, which, 1).expand({-1, count, -1});
  };
  return at::cat({row(0, tokens - references), row(1, references)}, 1);
}

Mlp::Mlp(const Scope& s, const Config& c)
    : gated_(c.gated_mlp),
      in_(s / 0, c.hidden, c.gated_mlp ? 2 * c.mlp : c.mlp, c.bias),
      out_(s / 2, c.mlp, c.hidden, c.bias) {}

Tensor Mlp::operator()(const Tensor& x) const {
  return gated_ ? out_({}, in_(x), true) : nn::gelu_mlp(in_, out_, x);
}

Stream::Stream(const JointParts& parts, const std::string& kind, const Config& c)
    : heads_(c.heads()),
      qkv_(parts.attention.scope / (kind + "_attn") / "qkv", c.hidden, 3 * c.hidden, c.qkv_bias),
      proj_(parts.attention.scope / (kind + "_attn") / "proj", c.hidden, c.hidden, c.bias),
      norm_(parts.attention.scope / (kind + "_attn") / "norm", c),
      mlp_(parts.mlp.scope / (kind + "_mlp"), c) {
  const auto& modulation = kind == "img" ? parts.image_modulation : parts.text_modulation;
  if (!c.shared_modulation) mod_.emplace(modulation.scope / (kind + "_mod"), c, 6);
}

void Stream::prepare(const nn::Qkv& to, const Tensor& x, const Tensor& modulation,
                     const nn::RopeTable& rope, Tensor* unturned) const {
  auto m = modulation.chunk(6, -1);
  auto take = [&](int which, const Tensor& part) {
    if (which == 0 && unturned) *unturned = norm_.query(part);
    if (which == 0) norm_.query.heads_into(to.q, part, rope);
    if (which == 1) norm_.key.heads_into(to.k, part, rope);
    if (which == 2) nn::copy_heads(to.v, part);
  };
  for_heads(qkv_, nn::modulated_norm(x, m[0], m[1], kNormEps), x.size(-1), heads_, take);
}

Tensor Stream::add_attended(const Tensor& x, const Tensor& attended,
                            const Tensor& modulation) const {
  return nn::gated_add(x, modulation.chunk(6, -1)[2], proj_(attended));
}

Tensor Stream::add_mlp(const Tensor& x, const Tensor& modulation) const {
  auto m = modulation.chunk(3, -1);
  return nn::gated_add(x, m[2], mlp_(nn::modulated_norm(x, m[0], m[1], kNormEps)));
}

Attended DoubleBlock::attend(const Tokens& x, const Common& common, KeptHeads* kept) const {
  auto text = x.txt.size(1), picture = x.img.size(1);
  const auto &img_rows = common.img, &txt_mod = common.txt;
  const auto img_mod = spread(img_rows, picture, common.references);
  Tensor attended, asking;
  {
    auto all = nn::room_for_heads(x.img, text + picture, heads_);
    txt_.prepare(part_of(all, 0, text), x.txt, txt_mod, part_of(common.rope, 0, text));
    img_.prepare(part_of(all, text, picture), x.img, img_mod, part_of(common.rope, text, picture),
                 common.prompts.empty() ? nullptr : &asking);
    attended = attended_to(all, common, kept);
  }
  Attended result{{img_.add_attended(x.img, attended.narrow(1, text, picture), img_mod),
                   txt_.add_attended(x.txt, attended.narrow(1, 0, text), txt_mod)},
                  img_rows.chunk(2, -1)[1],
                  txt_mod.chunk(2, -1)[1],
                  {}};
  for (const auto& prompt : common.prompts) result.told.push_back(told_by(prompt, asking));
  return result;
}

Tokens DoubleBlock::finish(const Attended& attended, std::int64_t references) const {
  const auto& [x, img_rows, txt_mod, told] = attended;
  auto img = img_.add_mlp(x.img, spread(img_rows, x.img.size(1), references));
  for (const auto& one : told) img.add_(one);
  return {img, within_range(txt_.add_mlp(x.txt, txt_mod))};
}

Tensor entrance(const Tensor& img, const Tensor& modulation) {
  auto m = modulation.narrow(1, 0, 1).chunk(6, -1);
  return nn::modulated_norm(img, m[0], m[1], kNormEps);
}

SingleBlock::SingleBlock(const Scope& modulation, const Scope& s, const Config& c)
    : config_(c),
      linear1_(s / "linear1", c.hidden, 3 * c.hidden + c.mlp * (c.gated_mlp ? 2 : 1), c.bias),
      linear2_(s / "linear2", c.hidden + c.mlp, c.hidden, c.bias),
      norm_(s / "norm", c) {
  if (!c.shared_modulation) mod_.emplace(modulation / "modulation", c, 3);
}

Tensor SingleBlock::forward(const Tensor& x, const Common& common, KeptHeads* kept) const {
  auto m = spread(common.img, x.size(1), common.references).chunk(3, -1);
  auto D = config_.hidden;
  auto normed = nn::modulated_norm(x, m[0], m[1], kNormEps);
  nn::Qkv heads;
  auto take = [&](int which, const Tensor& part) {
    if (which == 0) heads.q = norm_.query.heads(part, common.rope);
    if (which == 1) heads.k = norm_.key.heads(part, common.rope);
    if (which == 2) heads.v = part;
  };
  Tensor y;
  // In float16 a sum of the two parts might pass its range before they cancel each other.
  const bool apart = !config_.gated_mlp && x.scalar_type() != at::kHalf;
  if (apart && linear1_.is_plain(normed) && linear2_.is_plain(normed)) {
    // What the MLP needs is made after attention: it is wider than all else.
    for_heads(linear1_, normed, D, config_.heads(), take);
    auto attended = attended_to(std::move(heads), common, kept);
    y = linear2_.after(linear1_, 3 * D, normed, attended);
  } else {
    auto both = linear1_(normed);
    normed.reset();
    auto parts = split_heads(both.narrow(-1, 0, 3 * D), config_.heads());
    for (int i = 0; i < 3; ++i) take(i, parts[i]);
    parts.clear();
    auto attended = attended_to(std::move(heads), common, kept);
    auto rest = both.narrow(-1, 3 * D, both.size(-1) - 3 * D);
    both.reset();
    y = linear2_(std::move(attended), std::move(rest), config_.gated_mlp);
  }
  return within_range(nn::gated_add(x, m[2], y));
}

LastLayer::LastLayer(const Scope& s, const Config& c)
    : modulation_(s / "adaLN_modulation" / 1, c.hidden, 2 * c.hidden, c.bias),
      linear_(s / "linear", c.hidden, c.patch * c.patch * c.out_channels, c.bias) {}

Tensor LastLayer::forward(const Tensor& x, const Tensor& vec) const {
  auto m = modulation_(nn::silu(vec)).chunk(2, -1);
  return linear_(nn::modulated_norm(x, m[0], m[1], kNormEps));
}

}  // namespace distorch::models::flux
