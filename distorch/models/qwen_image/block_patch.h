#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "distorch/models/family.h"
#include "distorch/models/qwen_image/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen_image {

/// DiffSynth's ControlNet: small layers that run behind every block of the transformer and add what
/// a picture says to the image tokens. Source: ComfyUI comfy_extras/nodes_model_patch.py,
/// QwenImageBlockWiseControlNet.
class BlockPatch {
 public:
  /// Declares what embeds the picture; add_layer() declares the rest, so that its blocks lie among
  /// the transformer's in the order of execution.
  BlockPatch(const weights::Scope& scope, const Config& config, std::int64_t latent_channels);
  /// The layer behind the next of the transformer's blocks.
  void add_layer();

  /// latent [1 or B, channels, T, h, w] of the picture, in the network's scale -> tokens
  /// [1 or B, n, width].
  at::Tensor embed(const at::Tensor& latent) const;
  /// image tokens [B, L, width] behind a block -> the same, changed in the first n.
  at::Tensor forward(std::size_t block, const at::Tensor& image, const at::Tensor& embedded,
                     double strength) const;

 private:
  BlockPatch(const weights::Scope& scope, const weights::Scope& entry, const Config& config,
             std::int64_t latent_channels);

  struct Layer {
    Layer(const weights::Scope& scope, std::int64_t width);
    weights::Block block;
    nn::RmsNorm image_norm, picture_norm;
    nn::Linear in, out;
  };

  weights::Scope scope_;
  std::int64_t width_;
  weights::Block block_;
  nn::Linear in_;
  std::vector<Layer> layers_;
};

/// Whether a file holds one.
bool is_block_patch(const weights::Checkpoint& file);
/// Channels of the latent that it wants: those of the model's, with a mask one more.
std::int64_t patch_channels(const weights::Checkpoint& patch);
/// The family with one more patch; Error(Usage) naming both files where it is no Qwen-Image, or one
/// of another width or depth.
std::shared_ptr<const Family> with_block_patch(const Family& family,
                                               const weights::Checkpoint& patch);

/// Where a patch's tensors lie beside the transformer's: "model_patch.0.".
std::string patch_prefix(int index);

}  // namespace distorch::models::qwen_image
