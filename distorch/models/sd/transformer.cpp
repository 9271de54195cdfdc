#include "distorch/models/sd/transformer.h"

#include "distorch/device/device.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"

namespace distorch::models::sd {
namespace {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

// One new block of weights for each transformer block, all at the transformer's place in the tree.
std::vector<Scope> blocks_of(const Scope& s, std::int64_t depth) {
  std::vector<Scope> blocks;
  for (std::int64_t d = 0; d < depth; ++d)
    blocks.push_back(
        s.block(depth == 1 ? s.prefix() : s.prefix() + ".transformer_blocks." + std::to_string(d)));
  return blocks;
}

}  // namespace

Attention::Attention(const Scope& s, std::int64_t channels, std::int64_t context,
                     std::int64_t heads)
    : heads_(heads),
      q_(s / "to_q", channels, channels, /*bias=*/false),
      k_(s / "to_k", context, channels, /*bias=*/false),
      v_(s / "to_v", context, channels, /*bias=*/false),
      out_(s / "to_out" / 0, channels, channels) {}

Tensor Attention::operator()(const Tensor& x, const Tensor& context,
                             const std::vector<BesideText>& pictures) const {
  auto q = q_(x);
  auto told = nn::attention(q, k_(context), v_(context), {.heads = heads_});
  for (const auto& picture : pictures) told = with_picture(told, q, heads_, picture);
  return out_(told);
}

Tensor Attention::identity(const Tensor& x) const { return out_(v_(x)); }

// One head after the other: its scores are the largest thing here.
Tensor Attention::received(const Tensor& x) const {
  auto heads_of = [&](const Tensor& t) {
    return t.view({t.size(0), t.size(1), heads_, -1}).permute({2, 0, 1, 3}).to(at::kFloat);
  };
  auto q = heads_of(q_(x)), k = heads_of(k_(x));
  auto scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  Tensor sum;
  for (std::int64_t head = 0; head < heads_; ++head) {
    auto scores = at::matmul(q[head], k[head].transpose(-2, -1)) * scale;
    auto of_head = at::softmax(scores, -1).sum(1);
    sum = sum.defined() ? sum + of_head : of_head;
  }
  return sum / static_cast<double>(heads_);
}

TransformerBlock::TransformerBlock(const Scope& s, const TransformerWidths& w)
    : norm1_(s / "norm1", w.channels),
      norm2_(s / "norm2", w.channels),
      norm3_(s / "norm3", w.channels),
      self_(s / "attn1", w.channels, w.channels, w.heads),
      text_(s / "attn2", w.channels, w.context, w.heads),
      ff_in_(s / "ff" / "net" / 0 / "proj", w.channels, 8 * w.channels),
      ff_out_(s / "ff" / "net" / 2, 4 * w.channels, w.channels) {}

Tensor TransformerBlock::operator()(const Tensor& x, const Tensor& context, Attend attend,
                                    const std::vector<BesideText>& pictures) const {
  auto h = norm1_(x);
  auto y = (attend == Attend::Identity ? self_.identity(h) : self_(h, h)).add_(x);
  y = text_(norm2_(y), context, pictures).add_(y);
  // Rows are independent, and 8 times as wide in between: a CPU, which gains nothing from more at
  // once, keeps only some of them that wide.
  auto rows = y.view({-1, y.size(-1)});
  for (const auto& part : rows.split(device::computes_as_cpu(y.device()) ? 1024 : rows.size(0)))
    part.add_(ff_out_(nn::geglu(ff_in_(norm3_(part)))));
  return y;
}

SpatialTransformer::Projection::Projection(const Scope& s, std::int64_t channels, bool linear)
    : weight(s.weight("weight", linear ? std::vector<std::int64_t>{channels, channels}
                                       : std::vector<std::int64_t>{channels, channels, 1, 1})),
      bias(s.weight("bias", {channels})) {}

Tensor SpatialTransformer::Projection::operator()(const Tensor& tokens) const {
  return nn::linear(tokens, weight, bias);
}

SpatialTransformer::SpatialTransformer(const Scope& s, const TransformerWidths& w)
    : SpatialTransformer(blocks_of(s, w.depth), w) {}

SpatialTransformer::SpatialTransformer(const std::vector<Scope>& blocks, const TransformerWidths& w)
    : norm_(blocks.front() / "norm", w.channels, 1e-6),
      in_(blocks.front() / "proj_in", w.channels, w.linear_projection),
      parts_([&] {
        std::vector<Sublayer> parts;
        for (std::size_t d = 0; d < blocks.size(); ++d) {
          auto layer = blocks[d] / "transformer_blocks" / static_cast<std::int64_t>(d);
          parts.push_back({weights::Block(blocks[d]), TransformerBlock(layer, w)});
        }
        return parts;
      }()),
      out_(blocks.back() / "proj_out", w.channels, w.linear_projection) {}

Tensor SpatialTransformer::forward(const Tensor& x, const Tensor& context, Attend attend,
                                   const Pictures& pictures) const {
  auto tokens = x;  // an image before the first part, [B, h·w, C] after it
  for (std::size_t d = 0; d < parts_.size(); ++d) {
    bool is_first = d == 0, is_last = d + 1 == parts_.size();
    Tensors inputs = {tokens, context, is_last && !is_first ? x : Tensor()};
    constexpr std::size_t own = 3;
    auto beside = pictures ? pictures(static_cast<std::int64_t>(d)) : std::vector<BesideText>();
    for (const auto& picture : beside) inputs.insert(inputs.end(), {picture.heads, picture.mask});
    tokens = parts_[d].block.run1(inputs, [&](const Tensors& in) {
      auto h = is_first ? in_(nn::to_tokens(norm_(in[0]))) : in[0];
      auto here = beside;  // where the block runs
      for (std::size_t i = 0; i < here.size(); ++i) {
        here[i].heads = in[own + 2 * i];
        here[i].mask = in[own + 2 * i + 1];
      }
      h = parts_[d].layer(h, in[1], attend, here);
      if (!is_last) return h;
      const auto& image = is_first ? in[0] : in[2];
      return nn::to_image(out_(h), image.size(2), image.size(3)).add_(image);
    });
  }
  return tokens;
}

Tensor SpatialTransformer::received_attention(const Tensor& x) const {
  const auto& first = parts_.front();
  return first.block.run1({x}, [&](const Tensors& in) {
    auto received = first.layer.received_attention(in_(nn::to_tokens(norm_(in[0]))));
    return received.view({in[0].size(0), 1, in[0].size(2), in[0].size(3)});
  });
}

}  // namespace distorch::models::sd
