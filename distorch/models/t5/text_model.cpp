#include "distorch/models/t5/text_model.h"

#include <cmath>

#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"

namespace distorch::models::t5 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {
constexpr double kNormEpsilon = 1e-6;
constexpr double kFarthest = 128;  // tokens; all beyond share a bucket

/// What is added to scores: nothing for tokens that count, the lowest number for others.
Tensor score_mask(const Tensor& mask, at::ScalarType dtype) {
  auto lowest = dtype == at::kHalf ? -65504.0 : -3.3895e38;
  return (1.0 - mask.to(at::kFloat)).mul_(lowest).to(dtype).unsqueeze(1).unsqueeze(1);
}
}  // namespace

Tensor distance_buckets(std::int64_t length, std::int64_t buckets) {
  auto places = at::arange(length, at::kLong);
  auto distance = places.unsqueeze(0) - places.unsqueeze(1);
  auto half = buckets / 2, exact = half / 2;
  auto behind = distance.gt(0).to(at::kLong) * half;
  distance = distance.abs();
  auto ranges = at::log(distance.to(at::kFloat) / static_cast<double>(exact)) /
                std::log(kFarthest / static_cast<double>(exact)) *
                static_cast<double>(half - exact);
  // The logarithm of 0 is never used.
  auto far = (ranges.clamp_min(0).to(at::kLong) + exact).clamp_max(half - 1);
  return behind + at::where(distance.lt(exact), distance, far);
}

/// One layer: x [B, L, width] float32 and the bias of positions [1, heads, L, L] -> both.
class TextModel::Layer {
 public:
  Layer(const Scope& s, const TextConfig& c, bool own_bias)
      : block_(s),
        heads_(c.heads),
        head_width_(c.inner / c.heads),
        gated_(c.gated),
        own_bias_(own_bias),
        norm1_(s / "layer" / 0 / "layer_norm", c.width, kNormEpsilon),
        norm2_(s / "layer" / 1 / "layer_norm", c.width, kNormEpsilon),
        q_(attention(s) / "q", c.width, c.inner, false),
        k_(attention(s) / "k", c.width, c.inner, false),
        v_(attention(s) / "v", c.width, c.inner, false),
        o_(attention(s) / "o", c.inner, c.width, false),
        wi_(mlp(s) / (c.gated ? "wi_0" : "wi"), c.width, c.mlp_width, false),
        wo_(mlp(s) / "wo", c.mlp_width, c.width, false) {
    if (gated_) wi_1_.emplace(mlp(s) / "wi_1", c.width, c.mlp_width, false);
    if (own_bias_) bias_.emplace(attention(s) / "relative_attention_bias", c.buckets, c.heads);
  }

  /// `bias` is undefined before the first layer with one of its own; `buckets` as above; `mask`
  /// [B, L] or undefined.
  Tensors forward(const Tensor& x, const Tensor& bias, const Tensor& buckets,
                  const Tensor& mask) const {
    return block_.run(
        {x, own_bias_ ? Tensor() : bias, own_bias_ ? buckets : Tensor(), mask},
        [this](const Tensors& in) -> Tensors {
          auto own =
              own_bias_
                  ? (*bias_)(in[2]).permute({2, 0, 1}).unsqueeze(0).to(q_.dtype()).contiguous()
                  : in[1];
          return {apply(in[0], in[3].defined() ? own + score_mask(in[3], own.scalar_type()) : own),
                  own};
        });
  }

 private:
  static Scope attention(const Scope& s) { return s / "layer" / 0 / "SelfAttention"; }
  static Scope mlp(const Scope& s) { return s / "layer" / 1 / "DenseReluDense"; }

  Tensor apply(const Tensor& x, const Tensor& bias) const {
    auto h = norm1_(x).to(q_.dtype());
    // T5 does not scale its scores: this undoes the scale of attention().
    auto q = q_(h).mul_(std::sqrt(static_cast<double>(head_width_)));
    auto y = x + o_(nn::attention(q, k_(h), v_(h), {.heads = heads_, .mask = bias}));
    h = norm2_(y).to(q_.dtype());
    auto wide = gated_ ? wi_.gelu_tanh(h).mul_((*wi_1_)(h)) : wi_(h).relu_();
    return y.add_(wo_(wide));
  }

  weights::Block block_;
  std::int64_t heads_, head_width_;
  bool gated_, own_bias_;
  nn::RmsNorm norm1_, norm2_;
  nn::Linear q_, k_, v_, o_, wi_, wo_;
  std::optional<nn::Linear> wi_1_;
  std::optional<nn::Embedding> bias_;
};

TextModel::Final::Final(const Scope& s, const TextConfig& c)
    : block(s), norm(s, c.width, kNormEpsilon) {}

TextModel::TextModel(const TextConfig& config)
    : config_(config),
      table_((Scope(manifest_) / "shared").block(), config_.vocabulary, config_.width),
      layers_([&] {
        std::vector<std::shared_ptr<const Layer>> layers;
        auto scope = Scope(manifest_) / "encoder" / "block";
        for (std::int64_t i = 0; i < config_.layers; ++i)
          layers.push_back(std::make_shared<const Layer>((scope / i).block(), config_,
                                                         i == 0 || config_.bias_everywhere));
        return layers;
      }()),
      final_((Scope(manifest_) / "encoder" / "final_layer_norm").block(), config_) {}

Tensor TextModel::forward(const Tensor& ids, const std::vector<Replacement>& replacements,
                          std::optional<int> layer, const Tensor& mask) const {
  auto x = table_.rows(ids, replacements);
  auto buckets = distance_buckets(ids.size(1), config_.buckets).to(ids.device());
  auto last = static_cast<int>(layers_.size());
  if (layer && std::abs(*layer) <= last && *layer != last)
    last = (*layer < 0 ? last + *layer : *layer) + 1;
  Tensor bias;
  for (int i = 0; i < last; ++i) {
    auto out = layers_[static_cast<std::size_t>(i)]->forward(x, bias, buckets, mask);
    x = out[0];
    bias = out[1];
  }
  return final_.block.run1({x}, [this](const Tensors& in) { return final_.norm(in[0]); });
}

}  // namespace distorch::models::t5
