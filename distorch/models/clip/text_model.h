#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/models/clip/config.h"
#include "distorch/models/text_encoder.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::clip {

struct TextInput {
  // [B, L] int64 on the CPU, L <= positions; any valid id but the end token where a replacement
  // stands
  at::Tensor ids;
  std::vector<Replacement> replacements;
  at::Device device = at::kCPU;  // where the model computes
};

struct TextOptions {
  /// Which layer's output is wanted: -1 the last, -2 the one before it, ...; counts from the front
  /// where >= 0. Nothing, or a number with more layers than there are: the last. As ComfyUI's
  /// CLIPSetLastLayer.
  std::optional<int> layer;
  bool normalize = true;  // apply the final norm to an intermediate layer's output too
  // multiply the pooled output by the projection, where the file has one
  bool project_pooled = true;
};

struct TextOutput {
  at::Tensor hidden;  // [B, L, width] float32
  // [B, width or projection] float32: final norm's output at the first end token (else the last
  // token)
  at::Tensor pooled;
};

/// CLIP's text transformer: causal, pre-norm.
/// Blocks: embeddings, every layer, the final norm with the projection.
/// Source: Radford et al. 2021; ComfyUI comfy/clip_model.py and comfy/sd1_clip.py for layer choice
/// and pooling.
class TextModel {
 public:
  explicit TextModel(const TextConfig& config);

  const TextConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// Needs weights attached to manifest().
  TextOutput forward(const TextInput& input, const TextOptions& options = {}) const;

 private:
  class Layer;
  at::Tensor embed(const TextInput& input) const;
  int wanted_layer(const std::optional<int>& layer) const;

  TextConfig config_;
  weights::Manifest manifest_;
  struct Embeddings {
    explicit Embeddings(const weights::Scope& scope, const TextConfig& config);
    weights::Block block;
    nn::Embedding token, position;
  } embeddings_;
  std::vector<std::shared_ptr<const Layer>> layers_;
  struct Final {
    explicit Final(const weights::Scope& scope, const TextConfig& config);
    weights::Block block;
    nn::LayerNorm norm;
    weights::Weight projection;
  } final_;
};

}  // namespace distorch::models::clip
