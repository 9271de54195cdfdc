#pragma once
#include <memory>

#include "distorch/models/ltxv/config.h"
#include "distorch/models/network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::ltxv {

/// The video transformer of LTX-Video, 0.9 to 0.9.8, 2B and 13B; every cell of the latent is a
/// token. Inputs:
///   x               [B, C, T, h, w], the noisy latent
///   timestep        [B], 0 .. 1
///   context         [B, Lt, text width], the text's states
///   attention_mask  [B, Lt], 1 where a token of the text counts; without it all do
///   frame_rate      a number, frames a second
///   denoise_mask    [B, 1 or C, T, h, w], by which the timestep of each token is multiplied; h and w
///                   may be 1 where it is the same all over each frame
///   keyframes       [B, 3, n]: frame, row and column, in frames and pixels, of the last n tokens,
///                   which are pictures that guide the others and are no part of the clip
/// Blocks: "in", "transformer_blocks.{i}", "out". Skipped parts: "double_blocks.3", all of a block;
/// "double_blocks.3.attn1", the attention of its tokens to each other: values pass as they are.
/// Source: ComfyUI comfy/ldm/lightricks/model.py.
class Transformer final : public Network {
 public:
  explicit Transformer(const Config& config);
  ~Transformer() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;

  Config config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::ltxv
