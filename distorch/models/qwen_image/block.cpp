#include "distorch/models/qwen_image/block.h"

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Tensors;

JointBlock::Stream::Stream(const weights::Scope& s, const Config& c, bool image)
    : modulation(s / (image ? "img_mod" : "txt_mod") / 1, c.width, 6 * c.width),
      q(s / "attn" / (image ? "to_q" : "add_q_proj"), c.width, c.width),
      k(s / "attn" / (image ? "to_k" : "add_k_proj"), c.width, c.width),
      v(s / "attn" / (image ? "to_v" : "add_v_proj"), c.width, c.width),
      out(image ? s / "attn" / "to_out" / 0 : s / "attn" / "to_add_out", c.width, c.width),
      mlp_in(s / (image ? "img_mlp" : "txt_mlp") / "net" / 0 / "proj", c.width, 4 * c.width),
      mlp_out(s / (image ? "img_mlp" : "txt_mlp") / "net" / 2, 4 * c.width, c.width),
      norm_q(s / "attn" / (image ? "norm_q" : "norm_added_q"), c.head_width()),
      norm_k(s / "attn" / (image ? "norm_k" : "norm_added_k"), c.head_width()) {}

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

std::vector<JointBlock::Modulation> JointBlock::modulations(const Stream& stream,
                                                            const Tensor& time,
                                                            std::int64_t noiseless) {
  auto all = stream.modulation(time).unsqueeze(1);
  auto batch = noiseless > 0 ? all.size(0) / 2 : all.size(0);
  auto now = all.narrow(0, 0, batch).chunk(6, 2);
  std::vector<Tensor> zero(6);
  if (noiseless > 0) zero = all.narrow(0, batch, batch).chunk(6, 2);
  std::vector<Modulation> halves;
  for (std::size_t i : {0, 3})
    halves.push_back(
        {now[i], now[i + 1], now[i + 2], zero[i], zero[i + 1], zero[i + 2], noiseless});
  return halves;
}

JointBlock::JointBlock(const weights::Scope& scope, const Config& c)
    : heads_(c.heads), block_(scope), image_(scope, c, true), text_(scope, c, false) {}

void JointBlock::prepare(const nn::Qkv& to, const Stream& stream, const Tensor& x,
                         const nn::RopeTable& positions) const {
  auto split = [this](const Tensor& t) { return t.unflatten(-1, {heads_, -1}); };
  stream.norm_q.heads_into(to.q, split(stream.q(x)), positions);
  stream.norm_k.heads_into(to.k, split(stream.k(x)), positions);
  nn::copy_heads(to.v, split(stream.v(x)));
}

Tensor JointBlock::finish(const Stream& stream, const Tensor& x, const Tensor& attended,
                          const std::vector<Modulation>& modulation) {
  auto h = modulation[0].added(x, stream.out(attended));
  auto wide = nn::gelu_tanh_over(stream.mlp_in(modulation[1].normed(h)));
  return modulation[1].added(h, stream.mlp_out(wide));
}

Streams JointBlock::run(const Streams& x, const BlockContext& context) const {
  auto batch = x.text.size(0), tokens = x.text.size(1);
  auto image_mod = modulations(image_, context.time, context.noiseless);
  auto text_mod = modulations(text_, context.time.narrow(0, 0, batch), 0);
  Tensor attended;
  {
    const auto pictures = x.image.size(1);
    auto all = nn::room_for_heads(x.image, tokens + pictures, heads_);
    prepare(nn::part_of(all, 0, tokens), text_, text_mod[0].normed(x.text), context.text_positions);
    prepare(nn::part_of(all, tokens, pictures), image_, image_mod[0].normed(x.image),
            context.image_positions);
    attended = nn::attend(all.q, all.k, all.v, context.mask);
  }
  auto parts = attended.split_with_sizes({tokens, attended.size(1) - tokens}, 1);
  return {finish(image_, x.image, parts[1], image_mod), finish(text_, x.text, parts[0], text_mod)};
}

Streams JointBlock::forward(const Streams& x, const BlockContext& context,
                            const Tensor& residual) const {
  const auto& image = context.image_positions;
  const auto& text = context.text_positions;
  auto results = block_.run({x.image, x.text, context.time, image.cos, image.sin, text.cos,
                             text.sin, context.mask, residual},
                            [&](const Tensors& in) {
                              BlockContext here{in[2], image, text, in[7], context.noiseless};
                              here.image_positions.cos = in[3];
                              here.image_positions.sin = in[4];
                              here.text_positions.cos = in[5];
                              here.text_positions.sin = in[6];
                              auto out = run({in[0], in[1]}, here);
                              if (in[8].defined())
                                out.image.narrow(1, 0, in[8].size(1)).add_(in[8]);
                              return Tensors{out.image, out.text};
                            });
  return {results[0], results[1]};
}

}  // namespace distorch::models::qwen_image
