#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/models/qwen/config.h"
#include "distorch/models/text_encoder.h"
#include "distorch/models/token_table.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen {

/// States that are wanted: those after so many layers.
struct Tap {
  std::int64_t layers = 0;
  bool normed = false;  // through the final norm
};

struct TextInput {
  at::Tensor ids;  // [B, L] int64; any valid id where a replacement stands
  std::vector<Replacement> replacements;
  /// [B, L] float32, 1 where a token may be seen, 0 for padding; undefined: all may.
  at::Tensor mask;
  /// [3, L] float32: frame, row and column of each token, which are all the same in a text.
  at::Tensor positions;
};

/// A causal transformer with grouped keys, rotary positions and gated SiLU. What a layer adds is
/// added in float32.
/// Blocks: embeddings, every layer, the final norm.
/// Source: Qwen team 2025 (Qwen3, Qwen2.5-VL); ComfyUI comfy/text_encoders/llama.py.
class TextModel {
 public:
  /// Declares its weights in `manifest`, which must outlive it.
  TextModel(weights::Manifest& manifest, const TextConfig& config);

  const TextConfig& config() const { return config_; }

  /// The wanted states side by side: [B, L, taps · width] float32. Layers behind the last one that
  /// is wanted do not run. Needs weights attached.
  at::Tensor forward(const TextInput& input, const std::vector<Tap>& taps) const;

 private:
  class Layer;
  TextConfig config_;
  TokenTable table_;
  std::vector<std::shared_ptr<const Layer>> layers_;
  struct Final {
    Final(const weights::Scope& scope, const TextConfig& config);
    weights::Block block;
    nn::RmsNorm norm;
  } final_;
};

/// The rotation of tokens at `positions` [3, L]: of each half of a head a quarter of the pairs turns
/// by frame, three eighths by row, three eighths by column.
nn::RopeTable rotation(const at::Tensor& positions, const TextConfig& config);

}  // namespace distorch::models::qwen
