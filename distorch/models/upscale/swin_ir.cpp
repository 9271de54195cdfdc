#include "distorch/models/upscale/swin_ir.h"

#include <fmt/format.h>

#include <optional>

#include "distorch/models/tensor_size.h"
#include "distorch/models/upscale/framed_network.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::upscale {

using at::Tensor;
using weights::Block;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;
using weights::Tensors;

namespace {

/// x [B, H, W, width] -> the same shape.
class SwinBlock {
 public:
  SwinBlock(const Scope& s, const SwinIrConfig& c, std::int64_t heads, bool shifted)
      : window_{c.window, c.window},
        shift_(shifted ? c.window / 2 : 0),
        heads_(heads),
        norm1_(s / "norm1", c.frame.width),
        norm2_(s / "norm2", c.frame.width),
        qkv_(s / "attn" / "qkv", c.frame.width, 3 * c.frame.width),
        out_(s / "attn" / "proj", c.frame.width, c.frame.width),
        up_(s / "mlp" / "fc1", c.frame.width, c.mlp_width),
        down_(s / "mlp" / "fc2", c.mlp_width, c.frame.width),
        table_((s / "attn")
                   .weight("relative_position_bias_table",
                           {(2 * c.window - 1) * (2 * c.window - 1), heads})) {}

  Tensor forward(const Tensor& x) const {
    auto height = x.size(1), width = x.size(2);
    auto h = norm1_(x);
    if (shift_ > 0) h = at::roll(h, {-shift_, -shift_}, {1, 2});
    h = from_windows(attended(to_windows(h, window_), height, width), window_, height, width);
    if (shift_ > 0) h = at::roll(h, {shift_, shift_}, {1, 2});
    auto y = h + x;
    return down_(nn::gelu(up_(norm2_(y)))).add_(y);
  }

 private:
  Tensor attended(const Tensor& windows, std::int64_t height, std::int64_t width) const {
    auto n = window_.pixels();
    auto table = nn::patched(table_);
    auto mask = table.index_select(0, bias_rows(window_).to(table.device()))
                    .view({1, n, n, heads_})
                    .permute({0, 3, 1, 2});
    if (shift_ > 0) {
      auto border = border_mask(window_, {shift_, shift_}, height, width).to(table.options());
      auto pictures = windows.size(0) / border.size(0);
      mask = (mask + border.unsqueeze(1)).repeat({pictures, 1, 1, 1});
    }
    auto qkv = qkv_(windows).chunk(3, -1);
    return out_(
        nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads_, .mask = mask.contiguous()}));
  }

  Sides window_;
  std::int64_t shift_, heads_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear qkv_, out_, up_, down_;
  weights::Weight table_;
};

/// x [B, width, H, W] -> the same shape.
class Group {
 public:
  Group(const Scope& scope, const SwinIrConfig& c, std::size_t index)
      : block_(scope), residual_(scope / "conv", c.frame) {
    for (int i = 0; i < c.depths[index]; ++i)
      blocks_.emplace_back(scope / "residual_group" / "blocks" / i, c, c.heads[index], i % 2 == 1);
  }

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      auto h = pixels_last(in[0]);
      for (const auto& block : blocks_) h = block.forward(h);
      return residual_(channels_first(h)) + in[0];
    });
  }

 private:
  Block block_;
  std::vector<SwinBlock> blocks_;
  ResidualLayers residual_;
};

class SwinIr final : public FramedNetwork<SwinIrConfig, Group> {
 public:
  explicit SwinIr(const SwinIrConfig& config) : FramedNetwork(config, "patch_embed.norm") {}

  UpscaleShape shape() const override {
    auto unshuffled = config().unshuffle * config().unshuffle;
    const auto& frame = config().frame;
    return {frame.scale / config().unshuffle, frame.in_channels / unshuffled, frame.out_channels,
            16, unshuffled};
  }
  Tensor forward(const Tensor& image) const override {
    auto height = image.size(2), width = image.size(3);
    auto side = config().window * config().unshuffle;
    auto x = at::reflection_pad2d(
        image, {0, missing_pixels(width, side), 0, missing_pixels(height, side)});
    // The models for JPEG are the only ones with windows of 7; they count colours to 255.
    auto range = config().window == 7 ? 255.0 : 1.0;
    auto mean = mean_color(image.size(1), image.device());
    x = (x - mean) * range;
    if (config().unshuffle > 1) x = at::pixel_unshuffle(x, config().unshuffle);
    auto result = through(x);
    if (config().frame.exit == PixelExit::Repair) result = x + result;
    auto scale = shape().scale;
    return (result / range + mean).narrow(2, 0, height * scale).narrow(3, 0, width * scale);
  }
};

}  // namespace

std::unique_ptr<UpscaleNetwork> make_swin_ir(const SwinIrConfig& config) {
  return std::make_unique<SwinIr>(config);
}

UpscalePart find_swin_ir(const Checkpoint& file) {
  const std::string first = "layers.0.residual_group.blocks.0.";
  if (!file.has(first + "norm1.weight") || !file.has(first + "mlp.fc1.bias") ||
      !file.has(first + "attn.relative_position_index"))
    return {};
  auto part = file;
  for (const char* end : {"weight", "bias"})
    part.rename(std::string("conv_first.1.") + end, std::string("conv_first.") + end);
  SwinIrConfig c;
  c.frame = frame_of(part);
  c.unshuffle = file.has("conv_first.1.weight") ? root(c.frame.in_channels / 3) : 1;
  c.mlp_width = size_of(part, first + "mlp.fc1.bias", 0);
  c.window = root(size_of(part, first + "attn.relative_position_index", 0));
  for (int i = 0, groups = part.count("layers."); i < groups; ++i) {
    auto group = fmt::format("layers.{}.residual_group.blocks.", i);
    c.depths.push_back(part.count(group));
    c.heads.push_back(size_of(part, group + "0.attn.relative_position_bias_table", 1));
  }
  return {part, [c] { return make_swin_ir(c); }};
}

}  // namespace distorch::models::upscale
