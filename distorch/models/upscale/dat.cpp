#include "distorch/models/upscale/dat.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/upscale/framed_network.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/batch_norm.h"
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

constexpr double kSmallest = 1e-12;  // length of a vector that is divided by its length

/// A convolution of 3x3 pixels, each channel by itself.
class ByChannel {
 public:
  ByChannel(const Scope& s, std::int64_t channels)
      : channels_(channels),
        weight_(s.weight("weight", {channels, 1, 3, 3})),
        bias_(s.weight("bias", {channels})) {}
  Tensor operator()(const Tensor& x) const {
    return at::conv2d(x, nn::patched(weight_), nn::patched(bias_), 1, 1, 1, channels_);
  }

 private:
  std::int64_t channels_;
  weights::Weight weight_, bias_;
};

/// 1x1 convolutions around a norm.
class Squeezed {
 public:
  Squeezed(const Scope& s, int first, std::array<std::int64_t, 3> widths)
      : in_(s / first, widths[0], widths[1], nn::pointwise),
        norm_(s / (first + 1), widths[1]),
        out_(s / (first + 3), widths[1], widths[2], nn::pointwise) {}
  Tensor operator()(const Tensor& x) const { return out_(nn::gelu(norm_(in_(x)))); }

 private:
  nn::Conv2d in_;
  nn::BatchNorm norm_;
  nn::Conv2d out_;
};

/// What both kinds of attention share: projections, a convolution of the values beside the
/// attention, and how each weighs the other.
class Mixing {
 public:
  Mixing(const Scope& s, const DatConfig& c)
      : qkv(s / "qkv", c.frame.width, 3 * c.frame.width, c.qkv_bias),
        out_(s / "proj", c.frame.width, c.frame.width),
        convolution_(s / "dwconv" / 0, c.frame.width),
        norm_(s / "dwconv" / 1, c.frame.width),
        channels_(s / "channel_interaction", 1, {c.frame.width, c.frame.width / 8, c.frame.width}),
        places_(s / "spatial_interaction", 0, {c.frame.width, c.frame.width / 16, 1}) {}

  nn::Linear qkv;

  /// values [B, H, W, C] -> [B, C, H, W].
  Tensor convolved(const Tensor& values) const {
    return nn::gelu(norm_(convolution_(channels_first(values).contiguous())));
  }
  /// What channels weigh, from all of a picture [B, C, H, W]: [B, C, 1, 1].
  Tensor channel_map(const Tensor& x) const { return at::sigmoid(channels_(x.mean({2, 3}, true))); }
  /// What places weigh: [B, 1, H, W].
  Tensor place_map(const Tensor& x) const { return at::sigmoid(places_(x)); }
  /// x [B, C, H, W] -> [B, H, W, C].
  Tensor out(const Tensor& x) const { return out_(pixels_last(x).contiguous()); }

 private:
  nn::Linear out_;
  ByChannel convolution_;
  nn::BatchNorm norm_;
  Squeezed channels_, places_;
};

/// Layers that make a bias for each head of a distance.
class PositionBias {
 public:
  PositionBias(const Scope& s, std::int64_t width, std::int64_t heads)
      : in_(s / "pos_proj", 2, width) {
    for (int i = 1; i <= 3; ++i) {
      auto layer = s / fmt::format("pos{}", i);
      norms_.emplace_back(layer / 0, width);
      layers_.emplace_back(layer / 2, width, i == 3 ? heads : width);
    }
  }
  /// [1, heads, pixels, pixels] of a window.
  Tensor operator()(const Sides& window, const at::TensorOptions& options) const {
    auto y = at::arange(1 - window.height, window.height, at::kFloat),
         x = at::arange(1 - window.width, window.width, at::kFloat);
    auto distances = at::stack({y.repeat_interleave(x.size(0)), x.repeat({y.size(0)})}, 1);
    auto h = in_(distances.to(options));
    for (std::size_t i = 0; i < layers_.size(); ++i) h = layers_[i](at::relu(norms_[i](h)));
    auto n = window.pixels();
    return h.index_select(0, bias_rows(window).to(h.device()))
        .view({1, n, n, h.size(1)})
        .permute({0, 3, 1, 2});
  }

 private:
  nn::Linear in_;
  std::vector<nn::LayerNorm> norms_;
  std::vector<nn::Linear> layers_;
};

/// Attention within windows. x [B, H, W, C] -> the same shape.
class PlaceAttention {
 public:
  PlaceAttention(const Scope& s, const DatConfig& c, std::int64_t heads, bool shifted)
      : mixing_(s, c), heads_(heads / 2), shifted_(shifted) {
    for (int half = 0; half < 2; ++half) {
      windows_.push_back(half == 0 ? c.window : Sides{c.window.width, c.window.height});
      biases_.emplace_back(s / "attns" / half / "pos", c.position_width, heads_);
    }
  }

  Tensor operator()(const Tensor& x) const {
    auto channels = x.size(3), half = channels / 2;
    auto qkv = mixing_.qkv(x);
    auto values = qkv.narrow(3, 2 * channels, channels);
    Tensors halves;
    for (int i = 0; i < 2; ++i) {
      auto part = at::cat({qkv.narrow(3, i * half, half), qkv.narrow(3, channels + i * half, half),
                           qkv.narrow(3, 2 * channels + i * half, half)},
                          3);
      halves.push_back(attended(part, i));
    }
    auto attended = channels_first(at::cat(halves, 3));
    auto convolved = mixing_.convolved(values);
    return mixing_.out(attended * mixing_.channel_map(convolved) +
                       convolved * mixing_.place_map(attended));
  }

 private:
  /// One half of the channels: q, k and v side by side [B, H, W, 3 · C/2] -> [B, H, W, C/2].
  Tensor attended(const Tensor& qkv, int half) const {
    const auto& window = windows_[half];
    auto height = qkv.size(1), width = qkv.size(2);
    auto side = std::max(window.height, window.width);
    auto down = (side - height % side) % side, right = (side - width % side) % side;
    auto x = at::constant_pad_nd(qkv, {0, 0, 0, right, 0, down});
    Sides shift{window.height / 2, window.width / 2};
    if (shifted_) x = at::roll(x, {-shift.height, -shift.width}, {1, 2});
    auto windows = to_windows(x, window);
    auto mask = biases_[half](window, x.options());
    if (shifted_) {
      auto border = border_mask(window, shift, x.size(1), x.size(2)).to(mask.options());
      mask = (mask + border.unsqueeze(1)).repeat({windows.size(0) / border.size(0), 1, 1, 1});
    }
    auto parts = windows.chunk(3, -1);
    auto h =
        nn::attention(parts[0], parts[1], parts[2], {.heads = heads_, .mask = mask.contiguous()});
    h = from_windows(h, window, x.size(1), x.size(2));
    if (shifted_) h = at::roll(h, {shift.height, shift.width}, {1, 2});
    return h.narrow(1, 0, height).narrow(2, 0, width);
  }

  Mixing mixing_;
  std::int64_t heads_;
  bool shifted_;
  std::vector<Sides> windows_;
  std::vector<PositionBias> biases_;
};

/// Attention of channels to channels. x [B, H, W, C] -> the same shape.
class ChannelAttention {
 public:
  ChannelAttention(const Scope& s, const DatConfig& c, std::int64_t heads)
      : mixing_(s, c), heads_(heads), temperature_(s.weight("temperature", {heads, 1, 1})) {}

  Tensor operator()(const Tensor& x) const {
    auto b = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
    auto qkv = mixing_.qkv(x).chunk(3, -1);
    // Each channel of a head with its numbers at all places: [B, heads, C / heads, H · W].
    auto by_channel = [&](const Tensor& t) {
      return t.reshape({b, height * width, heads_, channels / heads_}).permute({0, 2, 3, 1});
    };
    auto direction = [&](const Tensor& t) {
      auto vectors = by_channel(t);
      return vectors / vectors.norm(2, {-1}, true).clamp_min(kSmallest);
    };
    auto scores = at::matmul(direction(qkv[0]), direction(qkv[1]).transpose(-2, -1)) *
                  nn::patched(temperature_);
    auto attended = at::matmul(at::softmax(scores, -1), by_channel(qkv[2]));
    attended = attended.reshape({b, channels, height, width});
    auto convolved = mixing_.convolved(qkv[2]);
    return mixing_.out(attended * mixing_.place_map(convolved) +
                       convolved * mixing_.channel_map(attended));
  }

 private:
  Mixing mixing_;
  std::int64_t heads_;
  weights::Weight temperature_;
};

/// Two layers, of whose inner channels one half weighs the other by what lies around.
class GatedMlp {
 public:
  GatedMlp(const Scope& s, const DatConfig& c)
      : up_(s / "fc1", c.frame.width, c.inner),
        norm_(s / "sg" / "norm", c.inner / 2),
        around_(s / "sg" / "conv", c.inner / 2),
        down_(s / "fc2", c.inner / 2, c.frame.width) {}
  Tensor operator()(const Tensor& x) const {
    auto halves = nn::gelu(up_(x)).chunk(2, -1);
    auto gate = pixels_last(around_(channels_first(norm_(halves[1])).contiguous()));
    return down_(halves[0] * gate);
  }

 private:
  nn::Linear up_;
  nn::LayerNorm norm_;
  ByChannel around_;
  nn::Linear down_;
};

/// Whether the windows of a block are shifted: every second of those that attend within windows,
/// and in odd groups the others.
bool is_shifted(std::size_t group, int block) {
  return group % 2 == 0 ? block > 0 && (block - 2) % 4 == 0 : block % 4 == 0;
}

/// x [B, H, W, C] -> the same shape.
class DatBlock {
 public:
  DatBlock(const Scope& s, const DatConfig& c, std::size_t group, int index)
      : norm1_(s / "norm1", c.frame.width), norm2_(s / "norm2", c.frame.width), mlp_(s / "ffn", c) {
    if (index % 2 == 0)
      places_.emplace(s / "attn", c, c.heads[group], is_shifted(group, index));
    else
      channels_.emplace(s / "attn", c, c.heads[group]);
  }
  Tensor forward(const Tensor& x) const {
    auto h = norm1_(x);
    auto y = x + (places_ ? (*places_)(h) : (*channels_)(h));
    return y + mlp_(norm2_(y));
  }

 private:
  nn::LayerNorm norm1_, norm2_;
  GatedMlp mlp_;
  std::optional<PlaceAttention> places_;
  std::optional<ChannelAttention> channels_;
};

/// x [B, width, H, W] -> the same shape.
class Group {
 public:
  Group(const Scope& scope, const DatConfig& c, std::size_t index)
      : block_(scope), residual_(scope / "conv", c.frame) {
    for (int i = 0; i < c.depths[index]; ++i)
      blocks_.emplace_back(scope / "blocks" / i, c, index, i);
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
  ResidualLayers residual_;
  std::vector<DatBlock> blocks_;
};

class Dat final : public FramedNetwork<DatConfig, Group> {
 public:
  explicit Dat(const DatConfig& config) : FramedNetwork(config, "before_RG.1") {}

  UpscaleShape shape() const override {
    const auto& frame = config().frame;
    return {frame.scale, frame.in_channels, frame.out_channels, 16, 1};
  }
  Tensor forward(const Tensor& image) const override {
    auto mean = mean_color(image.size(1), image.device());
    return through(image - mean) + mean;
  }
};

std::int64_t heads_of(const Checkpoint& file, int group) {
  auto blocks = fmt::format("layers.{}.blocks.", group);
  const auto temperature = blocks + "1.attn.temperature";
  if (file.has(temperature)) return size_of(file, temperature, 0);
  return 2 * size_of(file, blocks + "0.attn.attns.0.pos.pos3.2.weight", 0);
}

}  // namespace

std::unique_ptr<UpscaleNetwork> make_dat(const DatConfig& config) {
  return std::make_unique<Dat>(config);
}

UpscalePart find_dat(const Checkpoint& file) {
  const std::string first = "layers.0.blocks.0.";
  const auto* distances = file.find(first + "attn.attns.0.rpe_biases");
  if (!distances || !file.has("before_RG.1.weight") || !file.has(first + "ffn.sg.conv.weight"))
    return {};
  DatConfig c;
  c.frame = frame_of(file);
  c.inner = size_of(file, first + "ffn.fc1.weight", 0);
  c.position_width = size_of(file, first + "attn.attns.0.pos.pos_proj.weight", 0);
  c.qkv_bias = file.has(first + "attn.qkv.bias");
  if (size_of(file, first + "attn.attns.0.rpe_biases", 1) != 2 || distances->shape.size() != 2)
    throw Error(ErrorKind::Shape, file.path(),
                fmt::format("'{}attn.attns.0.rpe_biases' is no list of pairs", first));
  size_of(file, first + "attn.attns.0.rpe_biases", 0);
  // The last entry of the list of distances is the largest: one less than the window's sides.
  auto largest = weights::read_dense(*distances, at::kFloat).reshape({-1, 2})[-1];
  c.window = {static_cast<std::int64_t>(largest[0].item<float>()) + 1,
              static_cast<std::int64_t>(largest[1].item<float>()) + 1};
  for (int i = 0, groups = file.count("layers."); i < groups; ++i) {
    c.depths.push_back(file.count(fmt::format("layers.{}.blocks.", i)));
    c.heads.push_back(heads_of(file, i));
  }
  return {file, [c] { return make_dat(c); }};
}

}  // namespace distorch::models::upscale
