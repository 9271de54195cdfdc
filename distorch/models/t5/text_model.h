#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "distorch/models/t5/config.h"
#include "distorch/models/text_encoder.h"
#include "distorch/models/token_table.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::t5 {

/// T5's encoder: pre-norm, no biases but one of attention by distance. What a layer adds is added in
/// float32, whatever it computes in: the sums outgrow float16.
/// Blocks: embeddings, every layer, the final norm.
/// Source: Raffel et al. 2020; Shazeer 2020 (gated); ComfyUI comfy/text_encoders/t5.py.
class TextModel {
 public:
  explicit TextModel(const TextConfig& config);

  const TextConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// ids [B, L] int64 on the device, any valid id where a replacement stands -> [B, L, width]
  /// float32, after the final norm: the last layer's, or where `layer` names one that there is
  /// (negative: from the end) that one's. `mask` [B, L], 1 where a token counts: the others are not
  /// attended to. Needs weights attached to manifest().
  at::Tensor forward(const at::Tensor& ids, const std::vector<Replacement>& replacements = {},
                     std::optional<int> layer = {}, const at::Tensor& mask = {}) const;

 private:
  class Layer;
  TextConfig config_;
  weights::Manifest manifest_;
  TokenTable table_;
  std::vector<std::shared_ptr<const Layer>> layers_;
  struct Final {
    Final(const weights::Scope& scope, const TextConfig& config);
    weights::Block block;
    nn::RmsNorm norm;
  } final_;
};

/// The bucket of every distance: [length, length] int64 on the CPU, rows are queries. Half of the
/// buckets are for keys behind the query; of each half, one half for single distances, the other for
/// ranges that grow up to 128.
at::Tensor distance_buckets(std::int64_t length, std::int64_t buckets);

}  // namespace distorch::models::t5
