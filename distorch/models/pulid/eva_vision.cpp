#include "distorch/models/pulid/eva_vision.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::pulid {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kEps = 1e-6;
constexpr std::int64_t kHeadWidth = 64;
constexpr double kTheta = 10000;
constexpr double kTrainedSide = 16;  // tokens of a side that the rotary positions count up to

/// Rows and columns by turning half of a head each; the class token stays as it is.
nn::RopeTable positions(std::int64_t grid, std::int64_t head, at::Device device) {
  auto side = at::arange(grid, at::TensorOptions(at::kFloat).device(device)) /
              static_cast<double>(grid) * kTrainedSide;
  auto rows = side.view({-1, 1}).expand({grid, grid}).reshape({-1}),
       columns = side.expand({grid, grid}).reshape({-1});
  auto ids = at::constant_pad_nd(at::stack({rows, columns}, -1), {0, 0, 1, 0}).unsqueeze(0);
  return nn::rope_table(ids, {head / 2, head / 2}, kTheta);
}

}  // namespace

class EvaVision::Embeddings {
 public:
  Embeddings(const Scope& s, const EvaConfig& c)
      : block_(s),
        patch_size_(c.patch),
        start_(s.weight("cls_token", {1, 1, c.width})),
        places_(s.weight("pos_embed", {1, c.grid * c.grid + 1, c.width})),
        patch_((s / "patch_embed" / "proj").weight("weight", {c.width, 3, c.patch, c.patch})),
        bias_((s / "patch_embed" / "proj").weight("bias", {c.width})) {}

  Tensor forward(const Tensor& pixels) const {
    return block_.run1({pixels}, [this](const Tensors& in) {
      auto weight = nn::patched(patch_);
      auto x = at::convolution(in[0].to(weight.scalar_type()), weight, nn::patched(bias_),
                               {patch_size_, patch_size_}, {0, 0}, {1, 1}, false, {0, 0}, 1)
                   .flatten(2)
                   .transpose(1, 2);
      return at::cat({nn::patched(start_).expand({x.size(0), 1, -1}), x}, 1) + nn::patched(places_);
    });
  }

 private:
  weights::Block block_;
  std::int64_t patch_size_;
  weights::Weight start_, places_, patch_, bias_;
};

/// x [B, tokens, width] -> the same shape.
class EvaVision::Layer {
 public:
  Layer(const Scope& s, const EvaConfig& c)
      : block_(s),
        config_(c),
        norm1_(s / "norm1", c.width, kEps),
        norm2_(s / "norm2", c.width, kEps),
        q_((s / "attn" / "q_proj").weight("weight", {c.width, c.width})),
        v_((s / "attn" / "v_proj").weight("weight", {c.width, c.width})),
        q_bias_((s / "attn").weight("q_bias", {c.width})),
        v_bias_((s / "attn").weight("v_bias", {c.width})),
        k_(s / "attn" / "k_proj", c.width, c.width, /*bias=*/false),
        attended_norm_(s / "attn" / "inner_attn_ln", c.width, kEps),
        out_(s / "attn" / "proj", c.width, c.width),
        gate_(s / "mlp" / "w1", c.width, c.mlp_width),
        up_(s / "mlp" / "w2", c.width, c.mlp_width),
        up_norm_(s / "mlp" / "ffn_ln", c.mlp_width, kEps),
        down_(s / "mlp" / "w3", c.mlp_width, c.width) {}

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      auto h = norm1_(in[0]);
      auto heads = [&](const Tensor& t) {
        return t.view({t.size(0), t.size(1), config_.heads, kHeadWidth});
      };
      const auto rope = positions(config_.grid, kHeadWidth, h.device());
      auto attended =
          nn::attend(nn::apply_rope(heads(nn::linear(h, q_, q_bias_)), rope),
                     nn::apply_rope(heads(k_(h)), rope), heads(nn::linear(h, v_, v_bias_)));
      auto y = out_(attended_norm_(attended)).add_(in[0]);
      h = norm2_(y);
      return down_(up_norm_(nn::swiglu_over(gate_(h), up_(h)))).add_(y);
    });
  }

 private:
  weights::Block block_;
  EvaConfig config_;
  nn::LayerNorm norm1_, norm2_;
  weights::Weight q_, v_, q_bias_, v_bias_;
  nn::Linear k_;
  nn::LayerNorm attended_norm_;
  nn::Linear out_, gate_, up_;
  nn::LayerNorm up_norm_;
  nn::Linear down_;
};

class EvaVision::Head {
 public:
  Head(const Scope& s, const EvaConfig& c)
      : block_(s), norm_(s / "norm", c.width, kEps), head_(s / "head", c.width, c.projection) {}
  Tensor forward(const Tensor& x) const {
    return block_.run1({x.select(1, 0)},
                       [this](const Tensors& in) { return head_(norm_(in[0])).to(at::kFloat); });
  }

 private:
  weights::Block block_;
  nn::LayerNorm norm_;
  nn::Linear head_;
};

EvaVision::EvaVision(const EvaConfig& config) : config_(config) {
  const Scope root(manifest_);
  embeddings_ = std::make_unique<const Embeddings>(root.block("embeddings"), config_);
  for (std::int64_t i = 0; i < config_.layers; ++i)
    layers_.push_back(std::make_unique<const Layer>((root / "blocks" / i).block(), config_));
  head_ = std::make_unique<const Head>(root.block("head"), config_);
}

EvaVision::~EvaVision() = default;

EvaStates EvaVision::forward(const Tensor& pixels) const {
  EvaStates states;
  auto x = embeddings_->forward(pixels);
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    if (i > 0 && i % kEvaLook == 0 && i <= kEvaLook * kEvaLooks)
      states.hidden.push_back(x.to(at::kFloat));
    x = layers_[static_cast<std::size_t>(i)]->forward(x);
  }
  states.embeds = head_->forward(x);
  return states;
}

Tensor eva_pixels(const Tensor& picture, const EvaConfig& config) {
  const auto size = config.image_size();
  auto x = picture;
  if (x.size(2) != size || x.size(3) != size)
    x = at::_upsample_bicubic2d_aa(x.contiguous(), {size, size}, false);
  const auto mean = at::tensor({0.48145466f, 0.4578275f, 0.40821073f}).view({3, 1, 1}),
             spread = at::tensor({0.26862954f, 0.26130258f, 0.27577711f}).view({3, 1, 1});
  return (x - mean) / spread;
}

Checkpoint eva_part(const Checkpoint& file) {
  for (const std::string prefix :
       {"visual.", "module.visual.", "model.visual.", "state_dict.visual.", ""}) {
    auto part = file.part(prefix);
    if (part.has("blocks.0.attn.inner_attn_ln.weight") && part.has("blocks.0.mlp.w1.weight"))
      return part;
  }
  throw Error(ErrorKind::Format, file.path(),
              "holds no picture encoder of EVA-02 CLIP, with tensors such as "
              "'visual.blocks.0.attn.inner_attn_ln.weight' (EVA02_CLIP_L_336_psz14_s6B.pt)");
}

EvaConfig eva_config(const Checkpoint& part) {
  EvaConfig c;
  c.width = size_of(part, "cls_token", 2);
  c.layers = part.count("blocks.");
  c.mlp_width = size_of(part, "blocks.0.mlp.w1.weight", 0);
  c.patch = size_of(part, "patch_embed.proj.weight", 2);
  c.projection = size_of(part, "head.weight", 0);
  const auto places = size_of(part, "pos_embed", 1) - 1;
  c.grid = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(places))));
  c.heads = c.width / kHeadWidth;
  auto refuse = [&](const std::string& why) { throw Error(ErrorKind::Shape, part.path(), why); };
  if (c.grid < 1 || c.grid * c.grid != places)
    refuse(fmt::format("'pos_embed' has {} places beside the first, which are no square", places));
  if (c.heads * kHeadWidth != c.width)
    refuse(
        fmt::format("'cls_token' has {} numbers, which are no heads of {}", c.width, kHeadWidth));
  if (c.layers <= kEvaLook * kEvaLooks)
    refuse(
        fmt::format("has {} layers, and PuLID looks at layer {}", c.layers, kEvaLook * kEvaLooks));
  return c;
}

}  // namespace distorch::models::pulid
