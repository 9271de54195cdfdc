#include "distorch/models/qwen/text_model.h"

#include <limits>
#include <optional>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"

namespace distorch::models::qwen {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

/// What is added to scores: nothing where a token is seen, a large negative number where it comes
/// later or is padding. [B, 1, L, L] float32.
Tensor score_mask(const Tensor& mask) {
  constexpr double kUnseen = std::numeric_limits<float>::lowest() / 4.0;
  auto length = mask.size(1);
  auto later = at::full({length, length}, kUnseen, mask.options()).triu_(1);
  auto padding = (1.0 - mask).mul_(kUnseen);
  return later + padding.view({mask.size(0), 1, 1, length});
}

}  // namespace

nn::RopeTable rotation(const Tensor& positions, const TextConfig& config) {
  const auto head_width = config.head_width;
  const std::int64_t frames = head_width / 8, others = head_width * 3 / 16;
  auto of_axis = [&](std::int64_t axis) {
    return nn::rope_table(positions[axis].view({1, -1, 1}), {head_width}, config.theta,
                          !config.neighbours);
  };
  auto frame = of_axis(0), row = of_axis(1), column = of_axis(2);
  auto joined = [&](const Tensor& a, const Tensor& b, const Tensor& c) {
    return at::cat({a.narrow(-1, 0, frames), b.narrow(-1, frames, others),
                    c.narrow(-1, frames + others, head_width / 2 - frames - others)},
                   -1);
  };
  return {joined(frame.cos, row.cos, column.cos), joined(frame.sin, row.sin, column.sin),
          !config.neighbours};
}

/// One layer: x [B, L, width] float32 -> the same.
class TextModel::Layer {
 public:
  Layer(const Scope& s, const TextConfig& c)
      : block_(s),
        c_(c),
        norm1_(s / "input_layernorm", c.width, c.norm_epsilon),
        norm2_(s / "post_attention_layernorm", c.width, c.norm_epsilon),
        q_(s / "self_attn" / "q_proj", c.width, c.heads * c.head_width, c.qkv_biases),
        k_(s / "self_attn" / "k_proj", c.width, c.key_heads * c.head_width, c.qkv_biases),
        v_(s / "self_attn" / "v_proj", c.width, c.key_heads * c.head_width, c.qkv_biases),
        o_(s / "self_attn" / "o_proj", c.heads * c.head_width, c.width, false),
        gate_(s / "mlp" / "gate_proj", c.width, c.mlp_width, false),
        up_(s / "mlp" / "up_proj", c.width, c.mlp_width, false),
        down_(s / "mlp" / "down_proj", c.mlp_width, c.width, false) {
    if (!c.head_norms) return;
    q_norm_.emplace(s / "self_attn" / "q_norm", c.head_width, c.norm_epsilon);
    k_norm_.emplace(s / "self_attn" / "k_norm", c.head_width, c.norm_epsilon);
  }

  Tensor forward(const Tensor& x, const nn::RopeTable& rope, const Tensor& mask) const {
    return block_.run1({x, rope.cos, rope.sin, mask}, [this](const Tensors& in) {
      return apply(in[0], {in[1], in[2], !c_.neighbours}, in[3]);
    });
  }

 private:
  Tensor heads(const Tensor& x, const std::optional<nn::RmsNorm>& norm,
               const nn::RopeTable& rope) const {
    auto split = x.view({x.size(0), x.size(1), -1, c_.head_width});
    return norm ? norm->heads(split, rope) : nn::apply_rope(split, rope);
  }

  Tensor apply(const Tensor& x, const nn::RopeTable& rope, const Tensor& mask) const {
    auto dtype = q_.dtype();
    auto h = norm1_(x).to(dtype);
    auto q = heads(q_(h), q_norm_, rope), k = heads(k_(h), k_norm_, rope);
    auto v = v_(h).view({x.size(0), x.size(1), -1, c_.head_width});
    auto seen = nn::attend(q, k, v, mask.defined() ? mask.to(dtype) : mask, !mask.defined());
    auto y = x + o_(seen);
    h = norm2_(y).to(dtype);
    return y.add_(down_(nn::swiglu_over(gate_(h), up_(h))));
  }

  weights::Block block_;
  TextConfig c_;
  nn::RmsNorm norm1_, norm2_;
  nn::Linear q_, k_, v_, o_, gate_, up_, down_;
  std::optional<nn::RmsNorm> q_norm_, k_norm_;
};

TextModel::Final::Final(const Scope& s, const TextConfig& c)
    : block(s), norm(s, c.width, c.norm_epsilon) {}

TextModel::TextModel(weights::Manifest& manifest, const TextConfig& config)
    : config_(config),
      table_((Scope(manifest) / "model" / "embed_tokens").block(), config.vocabulary, config.width),
      layers_([&] {
        std::vector<std::shared_ptr<const Layer>> layers;
        auto scope = Scope(manifest) / "model" / "layers";
        for (std::int64_t i = 0; i < config.layers; ++i)
          layers.push_back(std::make_shared<const Layer>((scope / i).block(), config));
        return layers;
      }()),
      final_((Scope(manifest) / "model" / "norm").block(), config) {}

Tensor TextModel::forward(const TextInput& input, const std::vector<Tap>& taps) const {
  auto x = table_.rows(input.ids, input.replacements);
  auto device = input.ids.device();
  auto rope = rotation(input.positions, config_);
  rope.cos = rope.cos.to(device);
  rope.sin = rope.sin.to(device);
  auto mask = input.mask.defined() ? score_mask(input.mask).to(device) : Tensor();
  std::vector<Tensor> states(taps.size());
  auto take = [&](std::int64_t done) {
    for (std::size_t i = 0; i < taps.size(); ++i)
      if (taps[i].layers == done)
        states[i] =
            taps[i].normed
                ? final_.block.run1({x}, [this](const Tensors& in) { return final_.norm(in[0]); })
                : x;
  };
  std::int64_t last = 0;
  for (const auto& tap : taps) last = std::max(last, tap.layers);
  take(0);
  for (std::int64_t i = 0; i < last; ++i) {
    x = layers_[static_cast<std::size_t>(i)]->forward(x, rope, mask);
    take(i + 1);
  }
  return states.size() == 1 ? states[0] : at::cat(states, -1);
}

}  // namespace distorch::models::qwen
