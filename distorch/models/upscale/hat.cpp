#include "distorch/models/upscale/hat.h"

#include <fmt/format.h>

#include <optional>

#include "distorch/models/tensor_size.h"
#include "distorch/models/upscale/framed_network.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/patch.h"

namespace distorch::models::upscale {

using at::Tensor;
using weights::Block;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kConvolutionShare = 0.01;

/// The norm, two layers and what they are added to.
class Mlp {
 public:
  Mlp(const Scope& s, std::int64_t width, std::int64_t inner)
      : norm_(s / "norm2", width),
        up_(s / "mlp" / "fc1", width, inner),
        down_(s / "mlp" / "fc2", inner, width) {}
  Tensor operator()(const Tensor& x) const { return down_(nn::gelu(up_(norm_(x)))).add_(x); }

 private:
  nn::LayerNorm norm_;
  nn::Linear up_, down_;
};

/// Biases of a table as a mask of attention: [1, heads, queries, keys].
Tensor biases(const weights::Weight& table, const Tensor& rows, std::int64_t queries,
              std::int64_t keys) {
  auto values = nn::patched(table);
  return values.index_select(0, rows.to(values.device()))
      .view({1, queries, keys, values.size(1)})
      .permute({0, 3, 1, 2});
}

/// Two convolutions, the second's channels weighed by what the whole picture has of them.
/// x [B, C, H, W] -> the same shape.
class ChannelBlock {
 public:
  ChannelBlock(const Scope& s, const HatConfig& c)
      : squeeze_(s / 0, c.frame.width, c.squeezed),
        spread_(s / 2, c.squeezed, c.frame.width),
        narrow_(s / 3 / "attention" / 1, c.frame.width, c.attention_width, nn::pointwise),
        widen_(s / 3 / "attention" / 3, c.attention_width, c.frame.width, nn::pointwise) {}

  Tensor operator()(const Tensor& x) const {
    auto y = spread_(nn::gelu(squeeze_(x)));
    auto whole = y.mean({2, 3}, true);
    return y * at::sigmoid(widen_(at::relu(narrow_(whole))));
  }

 private:
  nn::Conv2d squeeze_, spread_, narrow_, widen_;
};

/// x [B, H, W, width] -> the same shape.
class HybridBlock {
 public:
  HybridBlock(const Scope& s, const HatConfig& c, std::int64_t heads, bool shifted)
      : window_{c.window, c.window},
        shift_(shifted ? c.window / 2 : 0),
        heads_(heads),
        norm_(s / "norm1", c.frame.width),
        qkv_(s / "attn" / "qkv", c.frame.width, 3 * c.frame.width, c.qkv_bias),
        out_(s / "attn" / "proj", c.frame.width, c.frame.width),
        table_((s / "attn")
                   .weight("relative_position_bias_table",
                           {(2 * c.window - 1) * (2 * c.window - 1), heads})),
        channels_(s / "conv_block" / "cab", c),
        mlp_(s, c.frame.width, c.mlp_width) {}

  Tensor forward(const Tensor& x) const {
    auto height = x.size(1), width = x.size(2);
    auto normed = norm_(x);
    auto h = normed;
    if (shift_ > 0) h = at::roll(h, {-shift_, -shift_}, {1, 2});
    h = from_windows(attended(to_windows(h, window_), height, width), window_, height, width);
    if (shift_ > 0) h = at::roll(h, {shift_, shift_}, {1, 2});
    auto convolved = pixels_last(channels_(channels_first(normed)));
    return mlp_(x + h + convolved * kConvolutionShare);
  }

 private:
  Tensor attended(const Tensor& windows, std::int64_t height, std::int64_t width) const {
    auto n = window_.pixels();
    auto mask = biases(table_, bias_rows(window_), n, n);
    if (shift_ > 0) {
      auto border = border_mask(window_, {shift_, shift_}, height, width).to(mask.options());
      mask = (mask + border.unsqueeze(1)).repeat({windows.size(0) / border.size(0), 1, 1, 1});
    }
    auto qkv = qkv_(windows).chunk(3, -1);
    return out_(
        nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads_, .mask = mask.contiguous()}));
  }

  Sides window_;
  std::int64_t shift_, heads_;
  nn::LayerNorm norm_;
  nn::Linear qkv_, out_;
  weights::Weight table_;
  ChannelBlock channels_;
  Mlp mlp_;
};

/// For each pixel of a window and each of its surrounding the row of the table of biases. The table
/// counts distances from its middle on, and goes on at its end where they are negative.
Tensor overlap_rows(std::int64_t window, std::int64_t surrounding) {
  auto all = window + surrounding - 1;
  auto place = [](std::int64_t side) {
    auto one = at::arange(side, at::kLong);
    return std::pair{one.repeat_interleave(side), one.repeat({side})};
  };
  auto [own_y, own_x] = place(window);
  auto [wide_y, wide_x] = place(surrounding);
  auto first = window - surrounding + 1;
  auto dy = wide_y.unsqueeze(0) - own_y.unsqueeze(1) + first,
       dx = wide_x.unsqueeze(0) - own_x.unsqueeze(1) + first;
  return at::remainder(dy * all + dx, all * all).flatten();
}

/// Each window attends to a wider one around it. x [B, H, W, width] -> the same shape.
class OverlapBlock {
 public:
  OverlapBlock(const Scope& s, const HatConfig& c, std::int64_t heads)
      : window_{c.window, c.window},
        surrounding_(c.surrounding),
        heads_(heads),
        norm_(s / "norm1", c.frame.width),
        qkv_(s / "qkv", c.frame.width, 3 * c.frame.width, c.qkv_bias),
        out_(s / "proj", c.frame.width, c.frame.width),
        table_(s.weight("relative_position_bias_table",
                        {(c.window + c.surrounding - 1) * (c.window + c.surrounding - 1), heads})),
        mlp_(s, c.frame.width, c.overlap_mlp_width) {}

  Tensor forward(const Tensor& x) const {
    auto height = x.size(1), width = x.size(2), channels = x.size(3);
    auto qkv = qkv_(norm_(x));
    auto q = to_windows(qkv.narrow(3, 0, channels), window_);
    auto keys = around(qkv.narrow(3, channels, channels)),
         values = around(qkv.narrow(3, 2 * channels, channels));
    auto mask = biases(table_, overlap_rows(window_.height, surrounding_), window_.pixels(),
                       surrounding_ * surrounding_);
    auto h = nn::attention(q, keys, values, {.heads = heads_, .mask = mask.contiguous()});
    return mlp_(out_(from_windows(h, window_, height, width)) + x);
  }

 private:
  /// The surroundings of all windows, zeros outside of the picture: [windows, pixels of one, C].
  Tensor around(const Tensor& x) const {
    auto padding = (surrounding_ - window_.height) / 2, pixels = surrounding_ * surrounding_;
    auto columns = at::im2col(channels_first(x).contiguous(), {surrounding_, surrounding_}, {1, 1},
                              {padding, padding}, {window_.height, window_.width});
    return columns.view({x.size(0), x.size(3), pixels, -1})
        .permute({0, 3, 2, 1})
        .reshape({-1, pixels, x.size(3)});
  }

  Sides window_;
  std::int64_t surrounding_, heads_;
  nn::LayerNorm norm_;
  nn::Linear qkv_, out_;
  weights::Weight table_;
  Mlp mlp_;
};

/// x [B, width, H, W] -> the same shape.
class Group {
 public:
  Group(const Scope& scope, const HatConfig& c, std::size_t index)
      : block_(scope), residual_(scope / "conv", c.frame) {
    auto inner = scope / "residual_group";
    for (int i = 0; i < c.depths[index]; ++i)
      blocks_.emplace_back(inner / "blocks" / i, c, c.heads[index], i % 2 == 1);
    last_.emplace(inner / "overlap_attn", c, c.heads[index]);
  }

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      auto h = pixels_last(in[0]);
      for (const auto& block : blocks_) h = block.forward(h);
      return residual_(channels_first(last_->forward(h))) + in[0];
    });
  }

 private:
  Block block_;
  ResidualLayers residual_;
  std::vector<HybridBlock> blocks_;
  std::optional<OverlapBlock> last_;
};

class Hat final : public FramedNetwork<HatConfig, Group> {
 public:
  explicit Hat(const HatConfig& config) : FramedNetwork(config, "patch_embed.norm") {}

  UpscaleShape shape() const override {
    const auto& frame = config().frame;
    return {frame.scale, frame.in_channels, frame.out_channels, 16, 1};
  }
  Tensor forward(const Tensor& image) const override {
    auto height = image.size(2), width = image.size(3), window = config().window;
    auto mean = mean_color(image.size(1), image.device());
    auto x = at::reflection_pad2d(
        image - mean, {0, missing_pixels(width, window), 0, missing_pixels(height, window)});
    auto scale = config().frame.scale;
    return (through(x) + mean).narrow(2, 0, height * scale).narrow(3, 0, width * scale);
  }
};

}  // namespace

std::unique_ptr<UpscaleNetwork> make_hat(const HatConfig& config) {
  return std::make_unique<Hat>(config);
}

UpscalePart find_hat(const Checkpoint& file) {
  const std::string first = "layers.0.residual_group.blocks.0.";
  const std::string overlap = "residual_group.overlap_attn.";
  if (!file.has(first + "conv_block.cab.0.weight") ||
      !file.has("layers.0." + overlap + "relative_position_bias_table") ||
      !file.has("relative_position_index_SA") || !file.has("relative_position_index_OCA") ||
      !file.has("conv_last.weight"))
    return {};
  HatConfig c;
  c.frame = frame_of(file);
  c.mlp_width = size_of(file, first + "mlp.fc1.weight", 0);
  c.overlap_mlp_width = size_of(file, "layers.0." + overlap + "mlp.fc1.weight", 0);
  c.squeezed = size_of(file, first + "conv_block.cab.0.weight", 0);
  c.attention_width = size_of(file, first + "conv_block.cab.3.attention.1.weight", 0);
  c.window = root(size_of(file, "relative_position_index_SA", 0));
  c.surrounding = root(size_of(file, "relative_position_index_OCA", 1));
  c.qkv_bias = file.has(first + "attn.qkv.bias");
  for (int i = 0, groups = file.count("layers."); i < groups; ++i) {
    auto group = fmt::format("layers.{}.", i);
    c.depths.push_back(file.count(group + "residual_group.blocks."));
    c.heads.push_back(size_of(file, group + overlap + "relative_position_bias_table", 1));
  }
  return {file, [c] { return make_hat(c); }};
}

}  // namespace distorch::models::upscale
