#include "distorch/models/audio/wav2vec2.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::audio {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

struct Step {
  std::int64_t kernel, stride;
};
// The convolutions over the sound. A state sees 400 samples, the next one begins 320 later.
constexpr std::array<Step, 7> kSteps = {{{10, 5}, {3, 2}, {3, 2}, {3, 2}, {3, 2}, {2, 2}, {2, 2}}};
constexpr std::int64_t kShortest = 400;

/// One convolution over the sound, its norm and GELU.
struct Convolution {
  Convolution(const Scope& s, const Wav2Vec2Config& c, std::size_t index)
      : step(kSteps[index]), by_state(c.large) {
    auto in = index == 0 ? 1 : c.conv_width;
    weight = (s / "conv").weight("weight", {c.conv_width, in, step.kernel});
    if (c.conv_bias || (c.large && index == 0)) bias = (s / "conv").weight("bias", {c.conv_width});
    if (!c.large && index > 0) return;
    norm_weight = (s / "layer_norm").weight("weight", {c.conv_width});
    norm_bias = (s / "layer_norm").weight("bias", {c.conv_width});
  }

  /// x [1, C, T] -> [1, C', T'].
  Tensor operator()(const Tensor& x) const {
    std::optional<Tensor> added;
    if (bias.declared()) added = nn::patched(bias);
    std::vector<std::int64_t> stride = {step.stride};
    auto y = at::conv1d(x, nn::patched(weight), added, stride);
    if (!norm_weight.declared()) return nn::gelu(y);
    auto scale = nn::patched(norm_weight), shift = nn::patched(norm_bias);
    if (!by_state) return nn::gelu(at::group_norm(y, y.size(1), scale, shift));
    std::vector<std::int64_t> width = {y.size(1)};
    return nn::gelu(at::layer_norm(y.transpose(1, 2), width, scale, shift).transpose(1, 2));
  }

  Step step;
  bool by_state;
  weights::Weight weight, bias, norm_weight, norm_bias;
};

/// Everything before the layers. One weights::Block.
struct Features {
  Features(const Scope& s, const Wav2Vec2Config& c)
      : block(s),
        norm(s / "feature_projection" / "layer_norm", c.conv_width),
        projection(s / "feature_projection" / "projection", c.conv_width, c.width),
        kernel(c.position_kernel),
        groups(c.position_groups),
        large(c.large) {
    for (std::size_t i = 0; i < kSteps.size(); ++i)
      convolutions.emplace_back(
          s / "feature_extractor" / "conv_layers" / static_cast<std::int64_t>(i), c, i);
    auto place = s / "encoder" / "pos_conv_embed" / "conv";
    length = (place / "parametrizations" / "weight").weight("original0", {1, 1, kernel});
    direction = (place / "parametrizations" / "weight")
                    .weight("original1", {c.width, c.width / groups, kernel});
    position_bias = place.weight("bias", {c.width});
    if (!large) first_norm.emplace(s / "encoder" / "layer_norm", c.width);
  }

  /// What the states next to each other say of its place: x [1, T, width] -> the same.
  Tensor positions(const Tensor& x) const {
    auto numbers = nn::patched(direction);
    const std::vector<std::int64_t> rows = {0, 1};
    auto weight = numbers * (nn::patched(length) / at::linalg_vector_norm(numbers, 2, rows, true));
    std::vector<std::int64_t> stride = {1}, padding = {kernel / 2}, dilation = {1};
    auto y = at::conv1d(x.transpose(1, 2), weight, nn::patched(position_bias), stride, padding,
                        dilation, groups);
    return nn::gelu(y.narrow(2, 0, x.size(1))).transpose(1, 2);
  }

  Tensor forward(const Tensor& sound) const {
    return block.run1({sound}, [this](const Tensors& in) {
      auto x = in[0];
      if (large) x = (x - x.mean()) / (x.var() + 1e-7).sqrt();
      x = x.unsqueeze(1).to(projection.dtype());
      for (const auto& one : convolutions) x = one(x);
      x = projection(norm(x.transpose(1, 2).contiguous()));
      x = x + positions(x);
      return first_norm ? (*first_norm)(x) : x;
    });
  }

  weights::Block block;
  std::vector<Convolution> convolutions;
  nn::LayerNorm norm;
  nn::Linear projection;
  std::int64_t kernel, groups;
  bool large;
  weights::Weight length, direction, position_bias;
  std::optional<nn::LayerNorm> first_norm;
};

/// One weights::Block.
struct Layer {
  Layer(const Scope& s, const Wav2Vec2Config& c)
      : block(s),
        q(s / "attention" / "q_proj", c.width, c.width),
        k(s / "attention" / "k_proj", c.width, c.width),
        v(s / "attention" / "v_proj", c.width, c.width),
        out(s / "attention" / "out_proj", c.width, c.width),
        norm(s / "layer_norm", c.width),
        mlp_in(s / "feed_forward" / "intermediate_dense", c.width, c.mlp_width),
        mlp_out(s / "feed_forward" / "output_dense", c.mlp_width, c.width),
        last_norm(s / "final_layer_norm", c.width),
        heads(c.heads()),
        large(c.large) {}

  Tensor attended(const Tensor& x) const {
    return out(nn::attention(q(x), k(x), v(x), {.heads = heads}));
  }
  Tensor wide(const Tensor& x) const { return mlp_out(nn::gelu(mlp_in(x))); }

  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      if (large) {
        auto y = in[0] + attended(norm(in[0]));
        return y + wide(last_norm(y));
      }
      auto y = norm(in[0] + attended(in[0]));
      return last_norm(y + wide(y));
    });
  }

  weights::Block block;
  nn::Linear q, k, v, out;
  nn::LayerNorm norm;
  nn::Linear mlp_in, mlp_out;
  nn::LayerNorm last_norm;
  std::int64_t heads;
  bool large;
};

}  // namespace

Checkpoint wav2vec2_part(const Checkpoint& file) {
  auto part = file.has_prefix("wav2vec2.") ? file.part("wav2vec2.") : file;
  if (!part.has("encoder.layer_norm.bias") || !part.has("feature_projection.projection.weight"))
    return {};
  // Files of older versions name the two factors of a weight otherwise.
  const std::string place = "encoder.pos_conv_embed.conv.";
  if (part.has(place + "weight_g")) {
    part.rename(place + "weight_g", place + "parametrizations.weight.original0");
    part.rename(place + "weight_v", place + "parametrizations.weight.original1");
  }
  return part;
}

Wav2Vec2Config wav2vec2_config(const Checkpoint& part) {
  const std::string direction = "encoder.pos_conv_embed.conv.parametrizations.weight.original1";
  Wav2Vec2Config c;
  c.width = size_of(part, "feature_projection.projection.weight", 0);
  c.conv_width = size_of(part, "feature_projection.projection.weight", 1);
  c.mlp_width = size_of(part, "encoder.layers.0.feed_forward.intermediate_dense.weight", 0);
  c.layers = part.count("encoder.layers.");
  c.position_kernel = size_of(part, direction, 2);
  c.position_groups = c.width / size_of(part, direction, 1);
  c.large = part.has("feature_extractor.conv_layers.1.layer_norm.weight");
  c.conv_bias = part.has("feature_extractor.conv_layers.1.conv.bias");
  if (c.width % 64 != 0 || c.position_groups < 1)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a wav2vec 2.0 encoder of width {}, which is no multiple of its "
                            "heads' 64",
                            c.width));
  return c;
}

struct Wav2Vec2::Parts {
  Parts(const Scope& root, const Wav2Vec2Config& c) : features(root.block("features"), c) {
    for (std::int64_t i = 0; i < c.layers; ++i)
      layers.emplace_back((root / "encoder" / "layers" / i).block(), c);
    if (!c.large) return;
    auto place = root.block("end");
    end = weights::Block(place);
    norm.emplace(place / "encoder" / "layer_norm", c.width);
  }

  Features features;
  std::vector<Layer> layers;
  weights::Block end;
  std::optional<nn::LayerNorm> norm;
};

Wav2Vec2::Wav2Vec2(const Wav2Vec2Config& config)
    : config_(config), parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Wav2Vec2::~Wav2Vec2() = default;

std::int64_t Wav2Vec2::states(std::int64_t samples) {
  for (const auto& step : kSteps)
    samples = samples < step.kernel ? 0 : (samples - step.kernel) / step.stride + 1;
  return samples;
}

std::vector<Tensor> Wav2Vec2::hear(const Tensor& samples) const {
  if (samples.dim() != 3 || samples.size(2) < kShortest)
    throw Error(ErrorKind::Shape, "audio",
                fmt::format("is too short to be heard: at least {} samples at {} a second are "
                            "needed, got {}",
                            kShortest, kRate, samples.dim() == 3 ? samples.size(2) : 0));
  auto x = parts_->features.forward(samples.to(at::kFloat).mean(1));
  std::vector<Tensor> all;
  for (const auto& layer : parts_->layers) {
    all.push_back(x.to(at::kFloat));
    x = layer.forward(x);
  }
  if (parts_->norm)
    x = parts_->end.run1({x}, [this](const Tensors& in) { return (*parts_->norm)(in[0]); });
  all.push_back(x.to(at::kFloat));
  return all;
}

}  // namespace distorch::models::audio
