#include "distorch/models/upscale/swin_ir.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::upscale {

using at::Tensor;
using nn::Conv2d;
using weights::Block;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kSlope = 0.2;        // of leaky ReLUs
constexpr double kEntrySlope = 0.01;  // of the one before the exit
constexpr double kHidden = -100.0;    // added to scores of pixels that are no neighbours

/// x [B, H, W, C] -> [windows, side², C]; both sides are multiples of `side`.
Tensor to_windows(const Tensor& x, std::int64_t side) {
  auto b = x.size(0), h = x.size(1) / side, w = x.size(2) / side;
  return x.reshape({b, h, side, w, side, x.size(3)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({b * h * w, side * side, x.size(3)});
}

Tensor from_windows(const Tensor& windows, std::int64_t side, std::int64_t height,
                    std::int64_t width) {
  auto h = height / side, w = width / side;
  auto b = windows.size(0) / (h * w);
  return windows.reshape({b, h, w, side, side, windows.size(2)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({b, height, width, windows.size(2)});
}

/// For each pair of pixels of a window the row of the table that holds their bias: [side⁴].
Tensor bias_rows(std::int64_t side) {
  auto place = at::arange(side, at::kLong);
  auto y = place.repeat_interleave(side), x = place.repeat({side});
  auto dy = y.unsqueeze(1) - y.unsqueeze(0) + side - 1,
       dx = x.unsqueeze(1) - x.unsqueeze(0) + side - 1;
  return (dy * (2 * side - 1) + dx).flatten();
}

/// What is added to the scores of shifted windows, so that pixels of opposite borders, which lie in
/// one window then, do not see each other: [windows of one picture, side², side²].
Tensor border_mask(std::int64_t side, std::int64_t shift, std::int64_t height, std::int64_t width) {
  auto zones = [&](std::int64_t length) {
    auto zone = at::zeros({length});
    zone.narrow(0, length - side, side).fill_(1);
    zone.narrow(0, length - shift, shift).fill_(2);
    return zone;
  };
  auto zone =
      (zones(height).unsqueeze(1) * 3 + zones(width).unsqueeze(0)).view({1, height, width, 1});
  auto windows = to_windows(zone, side).squeeze(2);
  auto differs = windows.unsqueeze(1) != windows.unsqueeze(2);
  return at::zeros(differs.sizes()).masked_fill(differs, kHidden);
}

/// x [B, H, W, width] -> the same shape.
class SwinBlock {
 public:
  SwinBlock(const Scope& s, const SwinIrConfig& c, std::int64_t heads, bool shifted)
      : side_(c.window),
        shift_(shifted ? c.window / 2 : 0),
        heads_(heads),
        norm1_(s / "norm1", c.width),
        norm2_(s / "norm2", c.width),
        qkv_(s / "attn" / "qkv", c.width, 3 * c.width),
        out_(s / "attn" / "proj", c.width, c.width),
        up_(s / "mlp" / "fc1", c.width, c.mlp_width),
        down_(s / "mlp" / "fc2", c.mlp_width, c.width),
        table_((s / "attn")
                   .weight("relative_position_bias_table",
                           {(2 * side_ - 1) * (2 * side_ - 1), heads})) {}

  Tensor forward(const Tensor& x) const {
    auto height = x.size(1), width = x.size(2);
    auto h = norm1_(x);
    if (shift_ > 0) h = at::roll(h, {-shift_, -shift_}, {1, 2});
    h = from_windows(attended(to_windows(h, side_), height, width), side_, height, width);
    if (shift_ > 0) h = at::roll(h, {shift_, shift_}, {1, 2});
    auto y = h + x;
    return down_(nn::gelu(up_(norm2_(y)))).add_(y);
  }

 private:
  Tensor attended(const Tensor& windows, std::int64_t height, std::int64_t width) const {
    auto n = side_ * side_;
    auto table = nn::patched(table_);
    auto mask = table.index_select(0, bias_rows(side_).to(table.device()))
                    .view({1, n, n, heads_})
                    .permute({0, 3, 1, 2});
    if (shift_ > 0) {
      auto border = border_mask(side_, shift_, height, width).to(table.options());
      auto pictures = windows.size(0) / border.size(0);
      mask = (mask + border.unsqueeze(1)).repeat({pictures, 1, 1, 1});
    }
    auto qkv = qkv_(windows).chunk(3, -1);
    return out_(
        nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads_, .mask = mask.contiguous()}));
  }

  std::int64_t side_, shift_, heads_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear qkv_, out_, up_, down_;
  weights::Weight table_;
};

/// The convolution behind a group: one, or three through a quarter of the width.
class Residual {
 public:
  Residual(const Scope& s, const SwinIrConfig& c) {
    if (!c.narrow_residual) {
      layers_.emplace_back(s, c.width, c.width);
      return;
    }
    layers_.emplace_back(s / 0, c.width, c.width / 4);
    layers_.emplace_back(s / 2, c.width / 4, c.width / 4, nn::pointwise);
    layers_.emplace_back(s / 4, c.width / 4, c.width);
  }

  Tensor operator()(const Tensor& x) const {
    auto y = layers_[0](x);
    for (std::size_t i = 1; i < layers_.size(); ++i) y = layers_[i](at::leaky_relu(y, kSlope));
    return y;
  }

 private:
  std::vector<Conv2d> layers_;
};

Tensor pixels_last(const Tensor& x) { return x.permute({0, 2, 3, 1}); }
Tensor channels_first(const Tensor& x) { return x.permute({0, 3, 1, 2}); }

/// x [B, width, H, W] -> the same shape.
class Group {
 public:
  Group(const Scope& scope, const SwinIrConfig& c, std::size_t index)
      : block_(scope), residual_(scope / "conv", c) {
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
  Residual residual_;
};

class Entry {
 public:
  Entry(const Scope& s, const SwinIrConfig& c)
      : block_(s),
        first_(s / "conv_first", c.in_channels, c.width),
        norm_(s / "patch_embed" / "norm", c.width) {}

  /// The first features, and the same normed.
  Tensors forward(const Tensor& image) const {
    return block_.run({image}, [this](const Tensors& in) -> Tensors {
      auto first = first_(nn::to_layout(in[0], first_.dtype()));
      return {first, channels_first(norm_(pixels_last(first)))};
    });
  }

 private:
  Block block_;
  Conv2d first_;
  nn::LayerNorm norm_;
};

class Exit {
 public:
  Exit(const Scope& s, const SwinIrConfig& c)
      : block_(s), config_(c), norm_(s / "norm", c.width), body_(s / "conv_after_body", c) {
    switch (c.exit) {
      case SwinExit::Shuffle:
        before_.emplace(s / "conv_before_upsample" / 0, c.width, c.features);
        add_shuffles(s);
        last_.emplace(s / "conv_last", c.features, c.out_channels);
        break;
      case SwinExit::Direct:
        ups_.emplace_back(s / "upsample" / 0, c.width, c.scale * c.scale * c.out_channels);
        break;
      case SwinExit::Nearest:
        before_.emplace(s / "conv_before_upsample" / 0, c.width, c.features);
        for (std::int64_t scale = 2, i = 1; scale <= c.scale; scale *= 2, ++i)
          ups_.emplace_back(s / fmt::format("conv_up{}", i), c.features, c.features);
        sharp_.emplace(s / "conv_hr", c.features, c.features);
        last_.emplace(s / "conv_last", c.features, c.out_channels);
        break;
      case SwinExit::Repair: last_.emplace(s / "conv_last", c.width, c.out_channels); break;
    }
  }

  Tensor forward(const Tensor& features, const Tensor& first) const {
    return block_.run1({features, first}, [this](const Tensors& in) {
      auto x = body_(channels_first(norm_(pixels_last(in[0])))) + in[1];
      if (before_) x = at::leaky_relu((*before_)(x), kEntrySlope);
      for (const auto& up : ups_) {
        if (config_.exit == SwinExit::Nearest)
          x = at::leaky_relu(up(nn::upsample_nearest(x, x.size(2) * 2, x.size(3) * 2)), kSlope);
        else
          x = at::pixel_shuffle(up(x), step());
      }
      if (sharp_) x = at::leaky_relu((*sharp_)(x), kSlope);
      return last_ ? (*last_)(x) : x;
    });
  }

 private:
  /// How much one step enlarges: 2 or, for a scale of 3, 3; all at once for Direct.
  std::int64_t step() const {
    return config_.exit == SwinExit::Direct || config_.scale == 3 ? config_.scale : 2;
  }
  void add_shuffles(const Scope& s) {
    std::int64_t done = 1;
    for (int i = 0; done < config_.scale; i += 2, done *= step())
      ups_.emplace_back(s / "upsample" / i, config_.features, step() * step() * config_.features);
  }

  Block block_;
  SwinIrConfig config_;
  nn::LayerNorm norm_;
  Residual body_;
  std::optional<Conv2d> before_, sharp_, last_;
  std::vector<Conv2d> ups_;
};

class SwinIr : public UpscaleNetwork {
 public:
  explicit SwinIr(const SwinIrConfig& config)
      : config_(config), entry_(Scope(manifest_).block("entry"), config) {
    for (std::size_t i = 0; i < config.depths.size(); ++i)
      groups_.emplace_back((Scope(manifest_) / "layers" / static_cast<std::int64_t>(i)).block(),
                           config, i);
    exit_.emplace(Scope(manifest_).block("exit"), config);
  }

  Manifest& manifest() override { return manifest_; }
  UpscaleShape shape() const override {
    auto unshuffled = config_.unshuffle * config_.unshuffle;
    return {config_.scale / config_.unshuffle, config_.in_channels / unshuffled,
            config_.out_channels, 16, unshuffled};
  }

  Tensor forward(const Tensor& image) const override {
    auto height = image.size(2), width = image.size(3);
    auto side = config_.window * config_.unshuffle;
    auto missing = [&](std::int64_t length) { return (side - length % side) % side; };
    auto x = at::reflection_pad2d(image, {0, missing(width), 0, missing(height)});
    // The models for JPEG are the only ones with windows of 7; they count colours to 255.
    auto range = config_.window == 7 ? 255.0 : 1.0;
    auto mean = image.size(1) == 3 ? at::tensor({0.4488f, 0.4371f, 0.4040f}).view({1, 3, 1, 1})
                                   : at::zeros({1, 1, 1, 1});
    mean = mean.to(image.device());
    x = (x - mean) * range;
    if (config_.unshuffle > 1) x = at::pixel_unshuffle(x, config_.unshuffle);
    auto features = entry_.forward(x);
    auto h = features[1];
    for (const auto& group : groups_) h = group.forward(h);
    auto result = exit_->forward(h, features[0]).to(at::kFloat);
    if (config_.exit == SwinExit::Repair) result = x + result;
    auto scale = shape().scale;
    return (result / range + mean).narrow(2, 0, height * scale).narrow(3, 0, width * scale);
  }

 private:
  Manifest manifest_;
  SwinIrConfig config_;
  Entry entry_;
  std::vector<Group> groups_;
  std::optional<Exit> exit_;
};

std::int64_t root(std::int64_t square) {
  return static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(square))));
}

void read_exit(const Checkpoint& file, SwinIrConfig& c) {
  c.scale = 1;
  if (file.has("conv_up1.weight")) {
    c.exit = SwinExit::Nearest;
    for (int i = 1; file.has(fmt::format("conv_up{}.weight", i)); ++i) c.scale *= 2;
  } else if (file.has("conv_before_upsample.0.weight")) {
    c.exit = SwinExit::Shuffle;
    for (int i = 0; file.has(fmt::format("upsample.{}.weight", i)); i += 2) {
      const auto& shape = file.shape(fmt::format("upsample.{}.weight", i));
      c.scale *= root(shape.at(0) / shape.at(1));
    }
  } else if (file.has("upsample.0.weight")) {
    c.exit = SwinExit::Direct;
    c.scale = root(file.shape("upsample.0.weight").at(0) / c.out_channels);
  } else {
    c.exit = SwinExit::Repair;
  }
  if (file.has("conv_before_upsample.0.weight"))
    c.features = file.shape("conv_before_upsample.0.weight").at(0);
}

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
  const auto& entry = part.shape("conv_first.weight");
  SwinIrConfig c;
  c.width = entry.at(0);
  c.in_channels = entry.at(1);
  c.unshuffle = file.has("conv_first.1.weight") ? root(c.in_channels / 3) : 1;
  const auto* last = part.find("conv_last.weight");
  c.out_channels = last ? last->shape.at(0) : c.in_channels;
  c.mlp_width = part.shape(first + "mlp.fc1.bias").at(0);
  c.window = root(part.shape(first + "attn.relative_position_index").at(0));
  for (int i = 0, groups = part.count("layers."); i < groups; ++i) {
    auto group = fmt::format("layers.{}.residual_group.blocks.", i);
    c.depths.push_back(part.count(group));
    c.heads.push_back(part.shape(group + "0.attn.relative_position_bias_table").at(1));
  }
  c.narrow_residual = !part.has("conv_after_body.weight");
  read_exit(part, c);
  return {part, [c] { return make_swin_ir(c); }};
}

}  // namespace distorch::models::upscale
