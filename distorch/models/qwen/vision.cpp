#include "distorch/models/qwen/vision.h"

#include <array>
#include <cmath>
#include <map>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/rope.h"

namespace distorch::models::qwen {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kNormEpsilon = 1e-6, kTheta = 10000.0;
constexpr std::int64_t kMerged = 2;      // patches, both ways, that become one token
constexpr std::int64_t kWindowSide = 4;  // tokens
constexpr std::int64_t kWholeEvery = 8;  // the last of so many layers sees the whole picture
constexpr double kFewestPixels = 3136, kMostPixels = 12845056;
constexpr std::array<double, 3> kMean = {0.48145466, 0.4578275, 0.40821073};
constexpr std::array<double, 3> kDeviation = {0.26862954, 0.26130258, 0.27577711};

std::pair<std::int64_t, std::int64_t> rounded_size(double height, double width, double factor) {
  // std::nearbyint rounds halves to even numbers.
  double h = std::nearbyint(height / factor) * factor, w = std::nearbyint(width / factor) * factor;
  if (h * w > kMostPixels) {
    auto beta = std::sqrt(height * width / kMostPixels);
    h = std::max(factor, std::floor(height / beta / factor) * factor);
    w = std::max(factor, std::floor(width / beta / factor) * factor);
  } else if (h * w < kFewestPixels) {
    auto beta = std::sqrt(kFewestPixels / (height * width));
    h = std::ceil(height * beta / factor) * factor;
    w = std::ceil(width * beta / factor) * factor;
  }
  return {static_cast<std::int64_t>(h), static_cast<std::int64_t>(w)};
}

/// Row and column of every patch, in the order of cut_picture(): [1, L, 2] float32.
Tensor places(std::int64_t rows, std::int64_t columns) {
  auto r = at::arange(rows, at::kFloat).unsqueeze(1).expand({rows, columns});
  auto c = at::arange(columns, at::kFloat).unsqueeze(0).expand({rows, columns});
  auto grouped = [&](const Tensor& x) {
    return x.reshape({rows / kMerged, kMerged, columns / kMerged, kMerged})
        .permute({0, 2, 1, 3})
        .reshape({-1});
  };
  return at::stack({grouped(r), grouped(c)}, -1).unsqueeze(0);
}

/// x [1, L, ...] with groups of four patches in another order.
Tensor reordered(const Tensor& x, const Tensor& order) {
  auto sizes = x.sizes().vec();
  auto groups = x.reshape({x.size(1) / (kMerged * kMerged), -1});
  return groups.index_select(0, order).view(sizes);
}

}  // namespace

TokenPicture cut_picture(const Tensor& picture, const VisionConfig& config) {
  auto side = config.patch * kMerged;
  auto [height, width] =
      rounded_size(static_cast<double>(picture.size(1)), static_cast<double>(picture.size(2)),
                   static_cast<double>(side));
  auto pixels = at::upsample_bilinear2d(
      picture.narrow(0, 0, 1).narrow(3, 0, 3).permute({0, 3, 1, 2}).to(at::kFloat).contiguous(),
      {height, width}, /*align_corners=*/false);
  auto of_channels = [](const std::array<double, 3>& values) {
    return at::tensor(at::ArrayRef<double>(values.data(), values.size()), at::kFloat)
        .view({1, 3, 1, 1});
  };
  pixels = (pixels - of_channels(kMean)) / of_channels(kDeviation);
  TokenPicture cut;
  cut.grid_rows = height / config.patch;
  cut.grid_columns = width / config.patch;
  cut.columns = cut.grid_rows * cut.grid_columns / (kMerged * kMerged);
  // [frames, 3, rows/2, 2, patch, columns/2, 2, patch] -> a row a patch, its numbers by channel,
  // frame, row, column.
  cut.patches = pixels
                    .view({1, 3, cut.grid_rows / kMerged, kMerged, config.patch,
                           cut.grid_columns / kMerged, kMerged, config.patch})
                    .expand({config.frames, -1, -1, -1, -1, -1, -1, -1})
                    .permute({2, 5, 3, 6, 1, 0, 4, 7})
                    .reshape({cut.grid_rows * cut.grid_columns, -1});
  return cut;
}

Windows windows_of(std::int64_t rows, std::int64_t columns) {
  // Windows by their shape: at most four differ.
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::int64_t>> by_shape;
  for (std::int64_t r = 0; r < rows; r += kWindowSide)
    for (std::int64_t c = 0; c < columns; c += kWindowSide) {
      auto high = std::min(kWindowSide, rows - r), wide = std::min(kWindowSide, columns - c);
      auto& order = by_shape[{high, wide}];
      for (std::int64_t i = 0; i < high; ++i)
        for (std::int64_t j = 0; j < wide; ++j) order.push_back((r + i) * columns + c + j);
    }
  Windows windows;
  for (const auto& [shape, order] : by_shape) {
    auto tokens = shape.first * shape.second;
    windows.order.insert(windows.order.end(), order.begin(), order.end());
    windows.groups.push_back(
        {static_cast<std::int64_t>(order.size()) / tokens, tokens * kMerged * kMerged});
  }
  return windows;
}

/// One layer: x [1, L, width] float32 -> the same.
class Vision::Layer {
 public:
  Layer(const Scope& s, const VisionConfig& c)
      : block_(s),
        heads_(c.heads),
        norm1_(s / "norm1", c.width, kNormEpsilon),
        norm2_(s / "norm2", c.width, kNormEpsilon),
        qkv_(s / "attn" / "qkv", c.width, 3 * c.width),
        proj_(s / "attn" / "proj", c.width, c.width),
        gate_(s / "mlp" / "gate_proj", c.width, c.mlp_width),
        up_(s / "mlp" / "up_proj", c.width, c.mlp_width),
        down_(s / "mlp" / "down_proj", c.mlp_width, c.width) {}

  /// `groups`: windows within which tokens see each other; empty: all see all.
  Tensor forward(const Tensor& x, const nn::RopeTable& rope,
                 const std::vector<Windows::Group>& groups) const {
    return block_.run1({x, rope.cos, rope.sin}, [&](const Tensors& in) {
      return apply(in[0], {in[1], in[2], true}, groups);
    });
  }

 private:
  Tensor apply(const Tensor& x, const nn::RopeTable& rope,
               const std::vector<Windows::Group>& groups) const {
    auto dtype = qkv_.dtype();
    auto qkv = qkv_(norm1_(x).to(dtype)).view({1, x.size(1), 3, heads_, -1});
    auto q = nn::apply_rope(qkv.select(2, 0), rope), k = nn::apply_rope(qkv.select(2, 1), rope);
    auto v = qkv.select(2, 2);
    auto y = x + proj_(groups.empty() ? nn::attend(q, k, v) : in_windows(q, k, v, groups));
    auto h = norm2_(y).to(dtype);
    return y.add_(down_(nn::swiglu_over(gate_(h), up_(h))));
  }

  static Tensor in_windows(const Tensor& q, const Tensor& k, const Tensor& v,
                           const std::vector<Windows::Group>& groups) {
    std::vector<Tensor> parts;
    std::int64_t first = 0;
    for (const auto& group : groups) {
      auto tokens = group.count * group.size;
      auto windows = [&](const Tensor& x) {
        return x.narrow(1, first, tokens).reshape({group.count, group.size, x.size(2), x.size(3)});
      };
      parts.push_back(nn::attend(windows(q), windows(k), windows(v)).reshape({1, tokens, -1}));
      first += tokens;
    }
    return at::cat(parts, 1);
  }

  weights::Block block_;
  std::int64_t heads_;
  nn::RmsNorm norm1_, norm2_;
  nn::Linear qkv_, proj_, gate_, up_, down_;
};

Vision::Patches::Patches(const Scope& s, const VisionConfig& c) : block(s) {
  if (c.frames_apart) {
    weight = s.weight("weight", {c.width, 3, c.patch, c.patch});
    second = s.weight("weight.1", {c.width, 3, c.patch, c.patch});
  } else {
    weight = s.weight("weight", {c.width, 3, c.frames, c.patch, c.patch});
  }
}

Tensor Vision::Patches::matrix() const {
  auto numbers = weight.dense();
  return (second.declared() ? at::stack({numbers, second.dense()}, 2) : numbers).flatten(1);
}

Vision::Merger::Merger(const Scope& s, const VisionConfig& c)
    : block(s),
      norm(s / "ln_q", c.width, kNormEpsilon),
      first(s / "mlp" / 0, kMerged * kMerged * c.width, kMerged * kMerged * c.width),
      second(s / "mlp" / 2, kMerged * kMerged * c.width, c.out_width) {}

Vision::Vision(weights::Manifest& manifest, const VisionConfig& config)
    : config_(config),
      patches_((Scope(manifest) / "visual" / "patch_embed" / "proj").block(), config),
      layers_([&] {
        std::vector<std::shared_ptr<const Layer>> layers;
        auto scope = Scope(manifest) / "visual" / "blocks";
        for (std::int64_t i = 0; i < config.layers; ++i)
          layers.push_back(std::make_shared<const Layer>((scope / i).block(), config));
        return layers;
      }()),
      merger_((Scope(manifest) / "visual" / "merger").block(), config) {}

Tensor Vision::forward(const Tensor& patches, std::int64_t rows, std::int64_t columns) const {
  auto device = patches.device();
  auto windows = windows_of(rows / kMerged, columns / kMerged);
  auto order = at::tensor(windows.order, at::kLong);
  auto width = config_.width / config_.heads / 2;
  auto rope = nn::rope_table(reordered(places(rows, columns), order), {width, width}, kTheta, true);
  rope.cos = rope.cos.to(device);
  rope.sin = rope.sin.to(device);
  auto x = patches_.block.run1({patches.unsqueeze(0)}, [this](const Tensors& in) {
    auto matrix = patches_.matrix();
    return at::matmul(in[0].to(matrix.scalar_type()), matrix.t()).to(at::kFloat);
  });
  x = reordered(x, order.to(device));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    bool whole = static_cast<std::int64_t>(i + 1) % kWholeEvery == 0;
    x = layers_[i]->forward(x, rope, whole ? std::vector<Windows::Group>{} : windows.groups);
  }
  auto tokens = merger_.block.run1({x}, [this](const Tensors& in) {
    auto h = merger_.norm(in[0]).reshape({in[0].size(1) / (kMerged * kMerged), -1});
    h = merger_.first(h.to(merger_.first.dtype()));
    return merger_.second(nn::gelu(h)).to(at::kFloat);
  });
  std::vector<std::int64_t> back(windows.order.size());
  for (std::size_t i = 0; i < back.size(); ++i)
    back[static_cast<std::size_t>(windows.order[i])] = static_cast<std::int64_t>(i);
  return tokens.index_select(0, at::tensor(back, at::kLong).to(device));
}

}  // namespace distorch::models::qwen
