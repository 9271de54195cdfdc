#include "distorch/models/florence2/vision.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::florence2 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

// Everything here is [B, h, w, C]; convolutions see that as channels-last.
Tensor as_picture(const Tensor& x) { return x.permute({0, 3, 1, 2}); }
Tensor as_rows(const Tensor& x) { return x.permute({0, 2, 3, 1}).contiguous(); }

/// Adds what every channel's own 3x3 filter makes of it.
struct Depthwise {
  Depthwise(const Scope& s, std::int64_t width)
      : weight((s / "fn" / "dw").weight("weight", {width, 1, 3, 3})),
        bias((s / "fn" / "dw").weight("bias", {width})) {}

  Tensor operator()(const Tensor& x) const {
    const std::vector<std::int64_t> one = {1, 1};
    return x + as_rows(at::conv2d(as_picture(x), nn::patched(weight), nn::patched(bias), one, one,
                                  one, weight.shape()[0]));
  }

  weights::Weight weight, bias;
};

struct Mlp {
  Mlp(const Scope& s, std::int64_t width)
      : norm(s / "norm", width),
        in(s / "fn" / "net" / "fc1", width, 4 * width),
        out(s / "fn" / "net" / "fc2", 4 * width, width) {}

  Tensor operator()(const Tensor& x) const { return x + out(nn::gelu(in(norm(x)))); }

  nn::LayerNorm norm;
  nn::Linear in, out;
};

/// Tokens see those of their own window. Windows at the right and the lower edge are filled up with
/// zeros, which take part.
struct WindowAttention {
  WindowAttention(const Scope& s, const StageConfig& c, std::int64_t window_size)
      : norm(s / "norm", c.width),
        qkv(s / "fn" / "qkv", c.width, 3 * c.width),
        out(s / "fn" / "proj", c.width, c.width),
        heads(c.heads),
        window(window_size) {}

  Tensor operator()(const Tensor& x) const {
    const auto batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
    const auto right = (window - width % window) % window;
    const auto below = (window - height % window) % window;
    auto padded = at::constant_pad_nd(norm(x), {0, 0, 0, right, 0, below});
    const auto rows = (height + below) / window, columns = (width + right) / window;
    auto windows = padded.view({batch, rows, window, columns, window, channels})
                       .permute({0, 1, 3, 2, 4, 5})
                       .reshape({-1, window * window, channels});
    auto parts = qkv(windows).view({windows.size(0), windows.size(1), 3, heads, channels / heads});
    auto seen = out(nn::attend(parts.select(2, 0), parts.select(2, 1), parts.select(2, 2)));
    auto whole = seen.view({batch, rows, columns, window, window, channels})
                     .permute({0, 1, 3, 2, 4, 5})
                     .reshape({batch, height + below, width + right, channels});
    return x + whole.narrow(1, 0, height).narrow(2, 0, width);
  }

  nn::LayerNorm norm;
  nn::Linear qkv, out;
  std::int64_t heads, window;
};

/// Channels see those of their own group: what a channel has at all tokens is its query, key and
/// value.
struct ChannelAttention {
  ChannelAttention(const Scope& s, const StageConfig& c)
      : norm(s / "norm", c.width),
        qkv(s / "fn" / "qkv", c.width, 3 * c.width),
        out(s / "fn" / "proj", c.width, c.width),
        groups(c.groups) {}

  Tensor operator()(const Tensor& x) const {
    const auto batch = x.size(0), tokens = x.size(1) * x.size(2), channels = x.size(3);
    auto parts = qkv(norm(x)).view({batch, tokens, 3, groups, channels / groups});
    // [B, N, G, c] each; a group's channels see each other by N numbers.
    auto q = parts.select(2, 0).permute({0, 2, 3, 1}), k = parts.select(2, 1).transpose(1, 2),
         v = parts.select(2, 2).permute({0, 2, 3, 1});
    const auto scale = 1.0 / std::sqrt(static_cast<double>(tokens));
    auto seen = at::matmul(at::softmax(at::matmul(q * scale, k), -1), v);
    return x + out(seen.permute({0, 3, 1, 2}).reshape(x.sizes()));
  }

  nn::LayerNorm norm;
  nn::Linear qkv, out;
  std::int64_t groups;
};

template <class Attention>
struct AttentionBlock {
  template <class... Rest>
  AttentionBlock(const Scope& s, const char* name, const StageConfig& c, Rest... rest)
      : conv1(s / "conv1", c.width),
        attention(s / name, c, rest...),
        conv2(s / "conv2", c.width),
        mlp(s / "ffn", c.width) {}

  Tensor operator()(const Tensor& x) const { return mlp(conv2(attention(conv1(x)))); }

  Depthwise conv1;
  Attention attention;
  Depthwise conv2;
  Mlp mlp;
};

/// One weights::Block.
struct Pair {
  Pair(const Scope& s, const StageConfig& c, std::int64_t window)
      : block(s),
        spatial(s / "spatial_block", "window_attn", c, window),
        channel(s / "channel_block", "channel_attn", c) {}

  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) { return channel(spatial(in[0])); });
  }

  weights::Block block;
  AttentionBlock<WindowAttention> spatial;
  AttentionBlock<ChannelAttention> channel;
};

}  // namespace

class Vision::Stage {
 public:
  /// Stage `index`; `conv` is the place and the block of its convolution, `blocks` that of its pairs.
  Stage(const Scope& conv, const Scope& blocks, const VisionConfig& vision, std::size_t index)
      : Stage(conv, vision.stages[index], index == 0 ? 3 : vision.stages[index - 1].width) {
    const auto& c = vision.stages[index];
    for (std::int64_t i = 0; i < c.depth; ++i)
      pairs_.push_back(std::make_unique<const Pair>((blocks / i).block(), c, vision.window));
  }

  /// x [B, h, w, C] of the stage before, or pixels in that order.
  Tensor forward(const Tensor& x) const {
    auto y = block_.run1({x}, [this](const Tensors& in) {
      auto start = in[0].to(conv_.dtype());
      if (norm_first_) return as_rows(conv_(as_picture(norm_(start))));
      return norm_(as_rows(conv_(as_picture(start))));
    });
    for (const auto& pair : pairs_) y = pair->forward(y);
    return y;
  }

 private:
  Stage(const Scope& conv, const StageConfig& c, std::int64_t in)
      : block_(conv),
        conv_(conv / "proj", in, c.width,
              {.kernel = c.kernel, .stride = c.stride, .padding = c.padding}),
        norm_(conv / "norm", c.norm_first ? in : c.width),
        norm_first_(c.norm_first) {}

  weights::Block block_;
  nn::Conv2d conv_;
  nn::LayerNorm norm_;
  bool norm_first_;
  std::vector<std::unique_ptr<const Pair>> pairs_;
};

class Vision::Projection {
 public:
  Projection(const Scope& s, std::int64_t in, std::int64_t out, std::int64_t positions)
      : block_(s),
        matrix_(s.weight("image_projection", {in, out})),
        norm_(s / "image_proj_norm", out),
        rows_((s / "image_pos_embed" / "row_embeddings").weight("weight", {positions, in / 2})),
        columns_((s / "image_pos_embed" / "column_embeddings")
                     .weight("weight", {positions, in - in / 2})) {}

  /// x [B, h, w, in] -> [B, 1 + h·w, out].
  Tensor forward(const Tensor& x) const {
    const auto limit = rows_.shape()[0];
    if (x.size(1) > limit || x.size(2) > limit)
      throw Error(
          ErrorKind::Shape, "picture",
          fmt::format("makes {} rows and {} columns of tokens, the model has positions for {}",
                      x.size(1), x.size(2), limit));
    return block_.run1({x}, [this](const Tensors& in) { return projected(in[0]); });
  }

 private:
  Tensor projected(const Tensor& x) const {
    const auto batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
    auto across = columns_.rows(0, width).unsqueeze(0).expand({height, width, -1});
    auto down = rows_.rows(0, height).unsqueeze(1).expand({height, width, -1});
    // The embedding of the first of several pictures: sines of 0 beside cosines of 0.
    auto first = at::arange(channels, x.options().dtype(at::kLong)).remainder(2).to(x.dtype());
    auto tokens = (x + at::cat({across, down}, -1)).view({batch, height * width, channels}) + first;
    auto all = at::cat({tokens.mean(1, true), tokens}, 1);
    return norm_(at::matmul(all, nn::patched(matrix_)));
  }

  weights::Block block_;
  weights::Weight matrix_;
  nn::LayerNorm norm_;
  weights::Weight rows_, columns_;
};

Vision::Vision(weights::Manifest& manifest, const VisionConfig& config, std::int64_t width) {
  const Scope root(manifest);
  const auto tower = root / "vision_tower";
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    stages_.push_back(std::make_unique<const Stage>((tower / "convs" / index).block(),
                                                    tower / "blocks" / index, config, i));
  }
  projection_ = std::make_unique<const Projection>(
      root.block("image_projection"), config.stages.back().width, width, config.positions);
}

Vision::~Vision() = default;

Tensor Vision::tower(const Tensor& pixels) const {
  auto x = as_rows(pixels);
  for (const auto& stage : stages_) x = stage->forward(x);
  return x;
}

Tensor Vision::forward(const Tensor& pixels) const { return projection_->forward(tower(pixels)); }

}  // namespace distorch::models::florence2
