#include "distorch/models/clip_vision/vision_model.h"

#include <array>
#include <cmath>
#include <optional>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::clip_vision {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

/// Squares of the picture become tokens, a class token goes before them, each place adds its own
/// numbers: [B, 3, size, size] -> [B, positions, width].
class VisionModel::Embeddings {
 public:
  Embeddings(const Scope& s, const VisionConfig& c) : block_(s), patch_size_(c.patch) {
    auto scope = s / "vision_model" / "embeddings";
    bool siglip = c.kind == VisionKind::SigLip;
    patch_ = (scope / "patch_embedding").weight("weight", {c.width, 3, c.patch, c.patch});
    if (siglip)
      bias_ = (scope / "patch_embedding").weight("bias", {c.width});
    else
      start_ = scope.weight("class_embedding", {c.width});
    position_ = (scope / "position_embedding").weight("weight", {c.positions, c.width});
    if (!siglip) norm_.emplace(s / "vision_model" / "pre_layrnorm", c.width);
  }

  Tensor forward(const Tensor& pixels) const {
    return block_.run1({pixels}, [this](const Tensors& in) {
      auto weight = nn::patched(patch_);
      std::optional<Tensor> bias;
      if (bias_.declared()) bias = nn::patched(bias_);
      auto x = at::convolution(in[0].to(weight.scalar_type()), weight, bias,
                               {patch_size_, patch_size_}, {0, 0}, {1, 1}, false, {0, 0}, 1)
                   .flatten(2)
                   .transpose(1, 2);
      if (start_.declared()) x = at::cat({nn::patched(start_).expand({x.size(0), 1, -1}), x}, 1);
      x = x + nn::patched(position_);
      return norm_ ? (*norm_)(x) : x;
    });
  }

 private:
  weights::Block block_;
  std::int64_t patch_size_;
  weights::Weight patch_, bias_, start_, position_;
  std::optional<nn::LayerNorm> norm_;
};

/// x [B, tokens, width] -> the same shape.
class VisionModel::Layer {
 public:
  Layer(const Scope& s, const VisionConfig& c)
      : block_(s),
        kind_(c.kind),
        heads_(c.heads),
        norm1_(s / "layer_norm1", c.width),
        norm2_(s / "layer_norm2", c.width),
        q_(s / "self_attn" / "q_proj", c.width, c.width),
        k_(s / "self_attn" / "k_proj", c.width, c.width),
        v_(s / "self_attn" / "v_proj", c.width, c.width),
        out_(s / "self_attn" / "out_proj", c.width, c.width),
        fc1_(s / "mlp" / "fc1", c.width, c.mlp_width),
        fc2_(s / "mlp" / "fc2", c.mlp_width, c.width) {}

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      auto h = norm1_(in[0]);
      auto y = out_(nn::attention(q_(h), k_(h), v_(h), {.heads = heads_})).add_(in[0]);
      return fc2_(activated(fc1_(norm2_(y)))).add_(y);
    });
  }

 private:
  Tensor activated(const Tensor& x) const {
    if (kind_ == VisionKind::ClipL) return nn::quick_gelu(x);
    return kind_ == VisionKind::ClipH ? nn::gelu(x) : at::gelu(x, "tanh");
  }

  weights::Block block_;
  VisionKind kind_;
  std::int64_t heads_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear q_, k_, v_, out_, fc1_, fc2_;
};

class VisionModel::Final {
 public:
  Final(const Scope& s, const VisionConfig& c)
      : block_(s), config_(c), norm_(s / "vision_model" / "post_layernorm", c.width) {
    if (c.projection == 0) return;
    projection_ = c.projection_transposed
                      ? s.weight("visual_projection", {c.width, c.projection})
                      : s.weight("visual_projection.weight", {c.projection, c.width});
  }

  VisionStates forward(const Tensor& last, const Tensor& penultimate) const {
    auto out = block_.run({last, penultimate}, [this](const Tensors& in) -> Tensors {
      bool siglip = config_.kind == VisionKind::SigLip;
      auto normed = norm_(siglip ? in[0] : in[0].select(1, 0));
      auto embeds = normed;
      if (projection_.declared()) {
        auto matrix = nn::patched(projection_);
        embeds =
            config_.projection_transposed ? at::matmul(normed, matrix) : at::linear(normed, matrix);
      }
      return {(siglip ? normed : in[0]).to(at::kFloat), in[1].to(at::kFloat),
              embeds.to(at::kFloat)};
    });
    return {out[0], out[1], out[2]};
  }

 private:
  weights::Block block_;
  VisionConfig config_;
  nn::LayerNorm norm_;
  weights::Weight projection_;
};

/// Two layers with GELU between them, of all tokens but the first. Source: ComfyUI
/// comfy/clip_model.py, LlavaProjector.
class VisionModel::Projector {
 public:
  Projector(const Scope& s, const VisionConfig& c)
      : block_(s),
        first_(s / "multi_modal_projector" / "linear_1", c.width, c.shown_width),
        second_(s / "multi_modal_projector" / "linear_2", c.shown_width, c.shown_width) {}

  Tensor forward(const Tensor& states) const {
    return block_.run1({states}, [this](const Tensors& in) {
      auto tokens = in[0].narrow(1, 1, in[0].size(1) - 1).to(first_.dtype());
      return second_(nn::gelu(first_(tokens))).to(at::kFloat);
    });
  }

 private:
  weights::Block block_;
  nn::Linear first_, second_;
};

VisionModel::VisionModel(const VisionConfig& config) : config_(config) {
  Scope root(manifest_);
  embeddings_ = std::make_shared<const Embeddings>(root.block("vision_model.embeddings"), config_);
  auto layers = root / "vision_model" / "encoder" / "layers";
  for (std::int64_t i = 0; i < config_.layers; ++i)
    layers_.push_back(std::make_shared<const Layer>((layers / i).block(), config_));
  final_ = std::make_shared<const Final>(root.block("vision_model.final"), config_);
  if (config_.shown_width > 0)
    projector_ = std::make_shared<const Projector>(root.block("multi_modal_projector"), config_);
}

VisionStates VisionModel::forward(const Tensor& pixels) const {
  auto x = embeddings_->forward(pixels);
  auto penultimate = x;
  for (const auto& layer : layers_) {
    penultimate = x;
    x = layer->forward(x);
  }
  auto states = final_->forward(x, penultimate);
  if (projector_) states.shown = projector_->forward(penultimate);
  return states;
}

Tensor prepared(const Tensor& image, const VisionConfig& config, bool crop) {
  auto size = config.image_size;
  auto x = image.narrow(3, 0, std::min<std::int64_t>(3, image.size(3))).to(at::kFloat);
  if (x.size(3) < 3) x = x.narrow(3, 0, 1).expand({-1, -1, -1, 3});
  x = x.movedim(-1, 1);
  if (x.size(2) != size || x.size(3) != size) {
    auto scale = static_cast<double>(size) / static_cast<double>(std::min(x.size(2), x.size(3)));
    auto side = [&](int dim) {
      return crop ? static_cast<std::int64_t>(
                        std::nearbyint(scale * static_cast<double>(x.size(dim))))
                  : size;
    };
    x = at::_upsample_bicubic2d_aa(x.contiguous(), {side(2), side(3)}, false);
    x = x.narrow(2, (x.size(2) - size) / 2, size).narrow(3, (x.size(3) - size) / 2, size);
  }
  x = (255.0 * x).clamp(0, 255).round() / 255.0;
  bool siglip = config.kind == VisionKind::SigLip;
  auto color = [](std::array<float, 3> values) {
    return at::tensor(at::ArrayRef<float>(values)).view({3, 1, 1});
  };
  auto mean = siglip ? color({0.5f, 0.5f, 0.5f}) : color({0.48145466f, 0.4578275f, 0.40821073f});
  auto deviation =
      siglip ? color({0.5f, 0.5f, 0.5f}) : color({0.26862954f, 0.26130258f, 0.27577711f});
  return (x - mean) / deviation;
}

}  // namespace distorch::models::clip_vision
