#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/models/flux/block.h"

namespace distorch::models::flux {

/// A picture cut in tokens, and where they lie.
struct Patches2d {
  at::Tensor tokens;                   // [B, L, C · patch²]; rows first
  std::int64_t height = 0, width = 0;  // in tokens
};
/// x [B, C, h, w]; sides that are no multiple of the patch go on from the beginning.
Patches2d cut(const at::Tensor& x, std::int64_t patch);
/// The other way round, cut to `like` [B, ?, h, w].
at::Tensor assemble(const at::Tensor& tokens, std::int64_t patch, at::IntArrayRef like);

/// What goes into the first layers.
struct EntryInputs {
  at::Tensor x, concat, timestep, context, vector, guidance;
  std::vector<at::Tensor> references;
  ReferenceMethod method = ReferenceMethod::Offset;
};

/// The first layers: everything that the blocks get. Weights: img_in, txt_in, time_in, vector_in,
/// guidance_in, and the modulations that all blocks share.
class Entry {
 public:
  Entry(const weights::Scope& scope, const Config& config);

  struct Result {
    at::Tensor img, txt;  // [B, Li, D], [B, Lt, D]
    at::Tensor vec;       // [B, V, D]
    /// What blocks take as Common::img and ::txt, and single ones as Common::img.
    at::Tensor img_mod, txt_mod, single_mod;
    nn::RopeTable rope;
  };
  Result forward(const EntryInputs& inputs) const;
  /// What the blocks are told of a level: noise, guidance, pooled text. [B, 1, D].
  at::Tensor level(const at::Tensor& timestep, const at::Tensor& vector,
                   const at::Tensor& guidance) const;

 private:
  /// Two layers with SiLU between them.
  struct Embedder {
    Embedder(const weights::Scope& scope, std::int64_t in, const Config& config, bool bias);
    at::Tensor operator()(const at::Tensor& x) const;
    nn::Linear in_layer, out_layer;
  };

  at::Tensor positions(const EntryInputs& inputs, std::int64_t text) const;

  Config config_;
  nn::Linear img_in_, txt_in_;
  Embedder time_in_;
  std::optional<Embedder> vector_in_, guidance_in_;
  std::optional<Modulation> img_mod_, txt_mod_, single_mod_;
};

}  // namespace distorch::models::flux
