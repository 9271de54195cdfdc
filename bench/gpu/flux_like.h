#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::bench {

/// Tokens of one step: [1, image, width] and [1, text, width], and a conditioning vector [1,
/// width].
struct FluxInputs {
  at::Tensor image, text, vector;
};

/// A transformer of FLUX's shape from the nn/ layers: double blocks (two streams that attend
/// together) and single blocks, each modulated by the vector; width / 128 heads, mlp 4 x width.
/// Left out: rotary positions, the norms of queries and keys, and the layers around the blocks.
/// bench/gpu/flux_like.py is the same in torch.
class FluxLike {
 public:
  /// Sizes from the names and shapes of the file (see make_weights.py).
  explicit FluxLike(const weights::Checkpoint& checkpoint);
  ~FluxLike();

  weights::Manifest& manifest() { return manifest_; }
  std::int64_t width() const { return width_; }
  /// The image's tokens after all blocks, [1, image, width].
  at::Tensor forward(const FluxInputs& inputs) const;

 private:
  struct Parts;
  std::int64_t width_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::bench
