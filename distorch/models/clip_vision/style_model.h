#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::clip_vision {

/// Turns what a picture encoder says into tokens for a text-to-image model.
class StyleNetwork {
 public:
  virtual ~StyleNetwork() = default;
  virtual weights::Manifest& manifest() = 0;
  /// Width of the states that it takes.
  virtual std::int64_t width() const = 0;
  /// states [B, L, width] -> [B, tokens, width of the text's states], float32.
  virtual at::Tensor forward(const at::Tensor& states) const = 0;
  /// The same of zeros on the CPU, for plans; weights are not needed.
  virtual at::Tensor blank(const at::Tensor& states) const = 0;
};

/// FLUX.1 Redux: two layers over SigLIP's states (names redux_up, redux_down), a token for each.
/// T2I style adapter: eight learned tokens that look at CLIP's states through a small transformer
/// (names style_embedding, transformer_layes, ln_pre, ln_post, proj). Source: ComfyUI
/// comfy/ldm/flux/redux.py, comfy/t2i_adapter/adapter.py.
struct StylePart {
  weights::Checkpoint part;
  std::function<std::unique_ptr<StyleNetwork>()> make;
};

/// Error(Format) that says what would fit where the file is neither.
StylePart find_style(const weights::Checkpoint& file);

}  // namespace distorch::models::clip_vision
