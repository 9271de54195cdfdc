#include "distorch/models/vae/blocks.h"

#include "distorch/nn/attention.h"

namespace distorch::models::vae {

using at::Tensor;
using weights::Tensors;

namespace {
constexpr double eps = 1e-6;
}

ResBlock::ResBlock(const weights::Scope& s, std::int64_t in, std::int64_t out)
    : block_(s),
      norm1_(s / "norm1", in, eps),
      conv1_(s / "conv1", in, out),
      norm2_(s / "norm2", out, eps),
      conv2_(s / "conv2", out, out) {
  if (in != out) shortcut_.emplace(s / "nin_shortcut", in, out, nn::pointwise);
}

Tensor ResBlock::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    auto h = conv1_(norm1_.silu(in[0]));
    h = conv2_(norm2_.silu(h));
    return h.add_(shortcut_ ? (*shortcut_)(in[0]) : in[0]);
  });
}

PixelAttention::PixelAttention(const weights::Scope& s, std::int64_t channels)
    : block_(s),
      norm_(s / "norm", channels, eps),
      q_(s / "q", channels, channels, nn::pointwise),
      k_(s / "k", channels, channels, nn::pointwise),
      v_(s / "v", channels, channels, nn::pointwise),
      out_(s / "proj_out", channels, channels, nn::pointwise) {}

Tensor PixelAttention::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    auto h = norm_(in[0]);
    auto y = nn::attention(nn::to_tokens(q_(h)), nn::to_tokens(k_(h)), nn::to_tokens(v_(h)),
                           {.heads = 1});
    return out_(nn::to_image(y, h.size(2), h.size(3))).add_(in[0]);
  });
}

Middle::Middle(const weights::Scope& s, std::int64_t channels)
    : first_((s / "block_1").block(), channels, channels),
      attention_((s / "attn_1").block(), channels),
      second_((s / "block_2").block(), channels, channels) {}

Tensor Middle::forward(const Tensor& x) const {
  return second_.forward(attention_.forward(first_.forward(x)));
}

Downsample::Downsample(const weights::Scope& s, std::int64_t channels)
    : block_(s), conv_(s / "conv", channels, channels, {.stride = 2, .padding = 0}) {}

Tensor Downsample::forward(const Tensor& x) const {
  return block_.run1(
      {x}, [this](const Tensors& in) { return conv_(at::constant_pad_nd(in[0], {0, 1, 0, 1})); });
}

Upsample::Upsample(const weights::Scope& s, std::int64_t channels)
    : block_(s), conv_(s / "conv", channels, channels) {}

Tensor Upsample::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    return conv_(nn::upsample_nearest(in[0], 2 * in[0].size(2), 2 * in[0].size(3)));
  });
}

}  // namespace distorch::models::vae
