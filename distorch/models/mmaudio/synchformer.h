#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::mmaudio {

/// Shape of Synchformer's half that sees. Sizes of the published one are the defaults.
struct SynchformerConfig {
  std::int64_t width = 768;
  std::int64_t heads = 12;  // width / 64
  std::int64_t layers = 12;
  std::int64_t mlp_width = 3072;
  std::int64_t patch = 16;   // pixels of a token, each way
  std::int64_t side = 14;    // tokens of a picture, each way
  std::int64_t tube = 2;     // frames of a token
  std::int64_t moments = 8;  // tokens of a segment in time

  std::int64_t pixels() const { return patch * side; }
  std::int64_t frames() const { return tube * moments; }
};

/// The tensors of the half that sees ("vfeat_extractor.blocks.0.attn.qkv.weight") without those
/// words. Empty where the file has none.
weights::Checkpoint synchformer_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
SynchformerConfig synchformer_config(const weights::Checkpoint& part);

/// Sees what moves in short stretches of a video. Blocks: "in", "blocks.{i}", "out". Source: Iashin et
/// al. 2024 (Synchformer), Patrick et al. 2021 (Motionformer) with attention in time, then in space.
class Synchformer {
 public:
  explicit Synchformer(const SynchformerConfig& config);
  ~Synchformer();

  const SynchformerConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// segments [S, 3, frames, pixels, pixels] -1..1 -> [S, moments, width] float32. Error(Shape) for
  /// segments of other sizes.
  at::Tensor forward(const at::Tensor& segments) const;

 private:
  struct Parts;
  SynchformerConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::mmaudio
