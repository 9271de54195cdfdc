#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::pulid {

/// Shape of the half of an EVA-02 CLIP that sees.
struct EvaConfig {
  std::int64_t width = 1024;
  std::int64_t heads = 16;  // of 64 numbers each
  std::int64_t layers = 24;
  std::int64_t mlp_width = 2730;
  std::int64_t patch = 14;  // pixels of a token, each way
  std::int64_t grid = 24;   // tokens of a side of the picture
  std::int64_t projection = 768;
  std::int64_t image_size() const { return patch * grid; }
};

/// Which layers' inputs PuLID looks at: those of layers 4, 8, ... 20.
inline constexpr std::int64_t kEvaLook = 4, kEvaLooks = 5;

/// What it says about pictures, float32 on the compute device.
struct EvaStates {
  at::Tensor embeds;               // [B, projection]
  std::vector<at::Tensor> hidden;  // kEvaLooks of [B, 1 + grid², width], the class token first
};

/// EVA02-CLIP-L-14-336's picture encoder: rotary positions beside the learned ones, gated MLPs, norms
/// before the last matrix of each half of a layer. Blocks: "embeddings", every layer, "head". Names
/// are those of its file below "visual.". Source: Sun et al. 2023; PuLID_ComfyUI
/// eva_clip/eva_vit_model.py.
class EvaVision {
 public:
  explicit EvaVision(const EvaConfig& config);
  ~EvaVision();

  const EvaConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// pixels [B, 3, image_size, image_size] float32, normalised (eva_pixels()).
  EvaStates forward(const at::Tensor& pixels) const;

 private:
  class Embeddings;
  class Layer;
  class Head;

  EvaConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Embeddings> embeddings_;
  std::vector<std::unique_ptr<const Layer>> layers_;
  std::unique_ptr<const Head> head_;
};

/// A picture [B, 3, H, W] 0..1 as it looks at it: its size (bicubic, antialiased), normalised.
at::Tensor eva_pixels(const at::Tensor& picture, const EvaConfig& config);

/// The picture encoder's tensors of a whole CLIP under this model's names. Error(Format) that says
/// what would fit where the file holds none.
weights::Checkpoint eva_part(const weights::Checkpoint& file);
/// Told by shapes. Error(MissingWeight), Error(Shape) where they do not go together or PuLID could
/// not look at it.
EvaConfig eva_config(const weights::Checkpoint& part);

}  // namespace distorch::models::pulid
