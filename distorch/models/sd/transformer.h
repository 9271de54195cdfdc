#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "distorch/models/sd/image_prompt.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd {

struct TransformerWidths {
  std::int64_t channels;
  std::int64_t context;  // of the text
  std::int64_t heads;
  std::int64_t depth;      // transformer blocks
  bool linear_projection;  // matrices (SD 2.x) or 1x1 convolutions (SD 1.x) before and after
};

/// What a transformer does where its tokens look at each other.
enum class Attend {
  Skip,  // the whole transformer is left out
  Usual,
  Identity,  // every token gets its own value
};

/// Attention of q from x [B, L, C] to k, v from context [B, Lc, D], and to pictures beside it; back
/// to [B, L, C].
class Attention {
 public:
  Attention(const weights::Scope& scope, std::int64_t channels, std::int64_t context,
            std::int64_t heads);
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& context,
                        const std::vector<BesideText>& pictures = {}) const;
  /// Where every token attends to itself alone: [B, L, C].
  at::Tensor identity(const at::Tensor& x) const;
  /// How much of everybody's attention each token gets, mean over the heads: [B, L] float32.
  at::Tensor received(const at::Tensor& x) const;

 private:
  std::int64_t heads_;
  nn::Linear q_, k_, v_, out_;
};

/// Self-attention, attention to the text, gated feed-forward; each behind a norm and added to its
/// input. x [B, L, C], context [B, Lc, D] -> [B, L, C].
class TransformerBlock {
 public:
  TransformerBlock(const weights::Scope& scope, const TransformerWidths& widths);
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& context, Attend attend,
                        const std::vector<BesideText>& pictures = {}) const;
  /// Of its self-attention: [B, L, C] -> [B, L].
  at::Tensor received_attention(const at::Tensor& x) const { return self_.received(norm1_(x)); }

 private:
  nn::LayerNorm norm1_, norm2_, norm3_;
  Attention self_, text_;
  nn::Linear ff_in_, ff_out_;
};

/// The transformer over the pixels of one level: [B, C, h, w] -> [B, C, h, w], residual. One
/// weights::Block for each transformer block; the projections go with the first and the last.
class SpatialTransformer {
 public:
  SpatialTransformer(const weights::Scope& scope, const TransformerWidths& widths);
  /// `pictures`: what a transformer block looks at beside the text; empty: nothing.
  using Pictures = std::function<std::vector<BesideText>(std::int64_t depth)>;
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context, Attend attend,
                     const Pictures& pictures = {}) const;
  /// How much attention each place gets in the first transformer block: [B, C, h, w] -> [B, 1, h,
  /// w] float32.
  at::Tensor received_attention(const at::Tensor& x) const;

 private:
  struct Sublayer {
    weights::Block block;
    TransformerBlock layer;
  };
  /// A projection under one name that is stored as matrix or as 1x1 convolution; the arithmetic is
  /// the same.
  struct Projection {
    weights::Weight weight, bias;
    Projection(const weights::Scope& scope, std::int64_t channels, bool linear);
    at::Tensor operator()(const at::Tensor& tokens) const;
  };
  SpatialTransformer(const std::vector<weights::Scope>& blocks, const TransformerWidths& widths);

  nn::GroupNorm norm_;
  Projection in_;
  std::vector<Sublayer> parts_;
  Projection out_;
};

}  // namespace distorch::models::sd
