#include "distorch/models/qwen_image/block.h"

#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Tensors;

JointBlock::Stream::Stream(const JointParts& parts, const Config& c, bool image)
    : modulation((image ? parts.image_modulation : parts.text_modulation).scope /
                     (image ? "img_mod" : "txt_mod") / 1,
                 c.width, 6 * c.width),
      q(parts.attention.scope / "attn" / (image ? "to_q" : "add_q_proj"), c.width, c.width),
      k(parts.attention.scope / "attn" / (image ? "to_k" : "add_k_proj"), c.width, c.width),
      v(parts.attention.scope / "attn" / (image ? "to_v" : "add_v_proj"), c.width, c.width),
      out(image ? parts.attention.scope / "attn" / "to_out" / 0
                : parts.attention.scope / "attn" / "to_add_out",
          c.width, c.width),
      mlp_in(parts.mlp.scope / (image ? "img_mlp" : "txt_mlp") / "net" / 0 / "proj", c.width,
             4 * c.width),
      mlp_out(parts.mlp.scope / (image ? "img_mlp" : "txt_mlp") / "net" / 2, 4 * c.width, c.width),
      norm_q(parts.attention.scope / "attn" / (image ? "norm_q" : "norm_added_q"), c.head_width()),
      norm_k(parts.attention.scope / "attn" / (image ? "norm_k" : "norm_added_k"), c.head_width()) {
}

Tensor JointBlock::Modulation::normed(const Tensor& x) const {
  if (noiseless == 0) return nn::modulated_norm(x, shift, scale);
  auto parts = x.split_with_sizes({noiseless, x.size(1) - noiseless}, 1);
  return at::cat(
      {nn::modulated_norm(parts[0], shift, scale), nn::modulated_norm(parts[1], shift0, scale0)},
      1);
}

Tensor JointBlock::Modulation::added(const Tensor& x, const Tensor& y) const {
  if (noiseless == 0) return nn::gated_add(x, gate, y);
  std::vector<std::int64_t> sizes = {noiseless, x.size(1) - noiseless};
  auto before = x.split_with_sizes(sizes, 1), more = y.split_with_sizes(sizes, 1);
  return at::cat(
      {nn::gated_add(before[0], gate, more[0]), nn::gated_add(before[1], gate0, more[1])}, 1);
}

JointBlock::Modulation JointBlock::modulation(const Tensor& half, std::int64_t noiseless) {
  const auto batch = noiseless > 0 ? half.size(0) / 2 : half.size(0);
  auto now = half.narrow(0, 0, batch).chunk(3, 2);
  std::vector<Tensor> zero(3);
  if (noiseless > 0) zero = half.narrow(0, batch, batch).chunk(3, 2);
  return {now[0], now[1], now[2], zero[0], zero[1], zero[2], noiseless};
}

Tensors JointBlock::image_modulations(const Tensors& levels) const {
  return parts_.image_modulation.run_each(
      levels, [this](const Tensor& time) { return image_.modulation(time).unsqueeze(1); });
}

Tensors JointBlock::text_modulations(const Tensors& levels) const {
  return parts_.text_modulation.run_each(
      levels, [this](const Tensor& time) { return text_.modulation(time).unsqueeze(1); });
}

JointBlock::JointBlock(const weights::Scope& place, const Config& c)
    : heads_(c.heads), parts_(place, true), image_(parts_, c, true), text_(parts_, c, false) {}

void JointBlock::prepare(const nn::Qkv& to, const Stream& stream, const Tensor& x,
                         const nn::RopeTable& positions) const {
  auto split = [this](const Tensor& t) { return t.unflatten(-1, {heads_, -1}); };
  stream.norm_q.heads_into(to.q, split(stream.q(x)), positions);
  stream.norm_k.heads_into(to.k, split(stream.k(x)), positions);
  nn::copy_heads(to.v, split(stream.v(x)));
}

Tensors JointBlock::attend(const Streams& x, const BlockContext& context,
                           const Modulation& image_mod, const Modulation& text_mod) const {
  const auto tokens = x.text.size(1);
  Tensor attended;
  {
    const auto pictures = x.image.size(1);
    auto all = nn::room_for_heads(x.image, tokens + pictures, heads_);
    prepare(nn::part_of(all, 0, tokens), text_, text_mod.normed(x.text), context.text_positions);
    prepare(nn::part_of(all, tokens, pictures), image_, image_mod.normed(x.image),
            context.image_positions);
    attended = nn::attend(all.q, all.k, all.v, context.mask);
  }
  auto parts = attended.split_with_sizes({tokens, attended.size(1) - tokens}, 1);
  return {image_mod.added(x.image, image_.out(parts[1])),
          text_mod.added(x.text, text_.out(parts[0]))};
}

Tensor JointBlock::add_mlp(const Stream& stream, const Tensor& x, const Modulation& modulation) {
  return modulation.added(x, nn::gelu_mlp(stream.mlp_in, stream.mlp_out, modulation.normed(x)));
}

Streams JointBlock::forward(const Streams& x, const BlockContext& context,
                            const Tensor& residual) const {
  const auto& image = context.image_positions;
  const auto& text = context.text_positions;
  const auto noiseless = context.noiseless;
  const auto [image_mod, text_mod] = context.modulations;
  auto its = image_mod.chunk(2, 2), texts = text_mod.chunk(2, 2);
  auto tokens = parts_.attention.block.run(
      {x.image, x.text, its[0], texts[0], image.cos, image.sin, text.cos, text.sin, context.mask},
      [&](const Tensors& in) {
        BlockContext here{{}, image, text, in[8], noiseless};
        here.image_positions.cos = in[4];
        here.image_positions.sin = in[5];
        here.text_positions.cos = in[6];
        here.text_positions.sin = in[7];
        return attend({in[0], in[1]}, here, modulation(in[2], noiseless), modulation(in[3], 0));
      });
  tokens.insert(tokens.end(), {its[1], texts[1], residual});
  auto results = parts_.mlp.block.run(tokens, [&](const Tensors& in) {
    auto made = add_mlp(image_, in[0], modulation(in[2], noiseless));
    if (in[4].defined()) made.narrow(1, 0, in[4].size(1)).add_(in[4]);
    return Tensors{made, add_mlp(text_, in[1], modulation(in[3], 0))};
  });
  return {results[0], results[1]};
}

}  // namespace distorch::models::qwen_image
