#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::clip_vision {

/// The picture encoders that share one architecture.
enum class VisionKind {
  ClipL,   // OpenAI ViT-L/14: quick GELU
  ClipH,   // OpenCLIP ViT-H/14 and ViT-bigG/14: exact GELU
  SigLip,  // no class token, GELU by tanh, every token normed at the end
};

struct VisionConfig {
  VisionKind kind = VisionKind::ClipL;
  std::int64_t width = 1024;
  std::int64_t heads = 16;
  std::int64_t layers = 24;
  std::int64_t mlp_width = 4096;
  std::int64_t patch = 14;             // pixels of a token, each way
  std::int64_t positions = 257;        // tokens
  std::int64_t image_size = 224;       // pixels of the square that it looks at
  std::int64_t projection = 768;       // 0: the file has none
  bool projection_transposed = false;  // stored as [width, projection], used as x · P
  std::int64_t shown_width = 0;  // LLaVA: of a token as the language model is shown it; 0: none
};

/// What an encoder says about pictures. All float32 on the compute device.
struct VisionStates {
  at::Tensor last;         // [B, tokens, width]: of the last layer; SigLIP: normed
  at::Tensor penultimate;  // [B, tokens, width]: of the layer before it
  at::Tensor embeds;  // [B, projection]: of the class token; SigLIP: [B, tokens, width], as `last`
  /// [B, tokens - 1, shown_width], for a language model; undefined where the file has no such part.
  at::Tensor shown = {};
};

/// CLIP's vision transformer. Blocks: embeddings, every layer, the final norm with the projection,
/// LLaVA's projector ("multi_modal_projector.linear_1...").
/// Names: those of transformers ("vision_model.encoder.layers.0...."). Source: Radford et al. 2021,
/// Zhai et al. 2023; ComfyUI comfy/clip_model.py, CLIPVisionModelProjection (norms with 1e-5).
class VisionModel {
 public:
  explicit VisionModel(const VisionConfig& config);

  const VisionConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// pixels [B, 3, image_size, image_size] float32 as prepared() gives them.
  VisionStates forward(const at::Tensor& pixels) const;

 private:
  class Layer;
  class Embeddings;
  class Final;
  class Projector;

  VisionConfig config_;
  weights::Manifest manifest_;
  std::shared_ptr<const Embeddings> embeddings_;
  std::vector<std::shared_ptr<const Layer>> layers_;
  std::shared_ptr<const Final> final_;
  std::shared_ptr<const Projector> projector_;  // null: none
};

/// A picture encoder's tensors of a file under this model's names: takes transformers names and
/// OpenCLIP's ("visual.transformer.resblocks.0...."), there and below "embedder.model." (unCLIP
/// checkpoints). Empty where the file has none.
weights::Checkpoint vision_part(const weights::Checkpoint& file);

/// Told by shapes: SigLIP has no class token; from 31 layers on it is ClipH. Error(MissingWeight) or
/// Error(Format) where they say no picture encoder. Source: ComfyUI comfy/clip_vision.py.
VisionConfig vision_config(const weights::Checkpoint& part);

/// An IMAGE [B, H, W, C] 0..1 as an encoder looks at it: resized (bicubic) so that the shorter side
/// fits and cut around the middle, or without `crop` stretched; rounded to 8 bits, then normalised.
/// -> [B, 3, image_size, image_size] float32. Source: ComfyUI comfy/clip_vision.py, clip_preprocess.
at::Tensor prepared(const at::Tensor& image, const VisionConfig& config, bool crop);

}  // namespace distorch::models::clip_vision
