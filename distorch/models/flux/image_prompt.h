#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::flux {

/// Shape of an adapter that lets FLUX look at pictures.
struct ImagePromptConfig {
  std::int64_t embedding = 768;  // numbers by which a picture encoder describes a picture
  std::int64_t tokens = 16;      // that they become
  std::int64_t width = 4096;     // of a token
  std::int64_t hidden = 3072;    // of the FLUX it belongs to
  std::int64_t blocks = 19;      // double blocks of that
};

/// XLabs' IP-Adapter: turns what a picture encoder says about pictures into tokens, and those into the
/// keys and values that the picture's tokens attend to in every double block. Nothing of it depends
/// on the noise level: it runs once, before a run. Blocks: "ip_adapter_proj_model", then one for each
/// double block. Source: XLabs-AI x-flux-comfyui, layers.py, ImageProjModel and IPProcessor.
class ImagePromptAdapter {
 public:
  explicit ImagePromptAdapter(const ImagePromptConfig& config);

  const ImagePromptConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// embeds [n, embedding] of n pictures -> [1, 2 · blocks, n, tokens, hidden] float32: of each block
  /// the keys, then the values.
  at::Tensor forward(const at::Tensor& embeds) const;

 private:
  struct Tokens;
  struct Heads;

  ImagePromptConfig config_;
  weights::Manifest manifest_;
  std::shared_ptr<const Tokens> tokens_;
  std::vector<std::shared_ptr<const Heads>> heads_;
};

/// What an adapter said about pictures, and about none, as ImagePromptAdapter::forward() gives it, on
/// the CPU: the first goes to positive conditionings, the second to negative ones.
struct ImagePrompt {
  at::Tensor positive, negative;
};

/// Adapters that a FLUX may have at the same time.
inline constexpr std::int64_t kMostImagePrompts = 4;
/// The input of the network that holds what one of them said.
std::string image_prompt_name(std::int64_t index);

/// The tensors of an adapter's file under this model's names. Error(Format) that says what would fit
/// where it holds none.
weights::Checkpoint image_prompt_part(const weights::Checkpoint& file);
/// Told by shapes. Error(MissingWeight), Error(Shape) where they do not go together.
ImagePromptConfig image_prompt_config(const weights::Checkpoint& part);

/// How strongly each of `count` double blocks takes part, by the names that the advanced node has:
/// "Linear" from `first` to `last`; "First half": so over the first half, then `last`; "Second half":
/// `first`, then so over the second half; "Sigmoid": first + (last - first) · (s - 1/2) with s rising
/// from 0 to 1. Error(Usage) for another name. Source: x-flux-comfyui utils.py.
std::vector<double> block_strengths(const std::string& kind, double first, double last,
                                    std::int64_t count);

}  // namespace distorch::models::flux
