#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::pulid {

/// Shape of a PuLID adapter.
struct AdapterConfig {
  std::int64_t identity = 1280;              // numbers of a face: ArcFace's and EVA's
  std::int64_t first = 1024, second = 1024;  // widths between the identity's layers
  std::int64_t tokens = 5;                   // that it becomes
  std::int64_t width = 1024;                 // of EVA's tokens
  std::int64_t looks = 5;                    // layers of EVA that are looked at, a token each
  std::int64_t context = 2048;               // of a token
  /// The attentions of the UNet that it has keys and values for.
  struct Layer {
    std::int64_t number = 1, channels = 640;
  };
  std::vector<Layer> layers;  // by rising number
};

/// PuLID: what a face is, in tokens, and those as keys and values for every attention to the text of
/// SDXL. Nothing of it depends on the noise level: it runs once, before a run. Blocks: "image_proj",
/// one for each layer of EVA, one for each layer of the UNet. Names: "image_proj.body.0.weight",
/// "ip_adapter.1.to_k_ip.weight". Source: Guo et al. 2024; PuLID_ComfyUI encoders.py, IDEncoder.
class Adapter {
 public:
  explicit Adapter(const AdapterConfig& config);
  ~Adapter();

  const AdapterConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// faces [n, identity + looks · L · width] float32: the identity, then EVA's states of L tokens one
  /// layer after the other -> [n, tokens + looks, context] float32. Error(Shape) naming both numbers
  /// where the faces were made by other networks.
  at::Tensor tokens_of(const at::Tensor& faces) const;
  /// tokens [n, T, context] -> [n, T, 2 · channels of all layers] float32: of each layer the keys,
  /// then the values.
  at::Tensor heads_of(const at::Tensor& tokens) const;

 private:
  class Mapping;
  struct Heads;

  AdapterConfig config_;
  weights::Manifest manifest_;
  weights::Block block_;
  std::unique_ptr<const Mapping> body_;
  std::vector<std::unique_ptr<const Mapping>> firsts_, others_;  // of EVA's tokens, by layer
  std::vector<std::unique_ptr<const Heads>> heads_;
};

/// The file's tensors under this model's names. Error(Format) that says what would fit where it
/// holds none.
weights::Checkpoint adapter_part(const weights::Checkpoint& file);
/// Told by shapes. Error(MissingWeight), Error(Shape) where they do not go together.
AdapterConfig adapter_config(const weights::Checkpoint& part);

}  // namespace distorch::models::pulid
