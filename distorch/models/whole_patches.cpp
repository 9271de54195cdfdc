#include "distorch/models/whole_patches.h"

#include <vector>

namespace distorch::models {

at::Tensor whole_patches(const at::Tensor& latent, std::int64_t patch) {
  auto missing = [&](std::int64_t size) { return (patch - size % patch) % patch; };
  auto down = missing(latent.size(-2)), right = missing(latent.size(-1));
  if (down == 0 && right == 0) return latent;
  // Pairs from the last dimension on, for all but batch and channels.
  std::vector<std::int64_t> edges(2 * static_cast<std::size_t>(latent.dim() - 2), 0);
  edges[1] = right;
  edges[3] = down;
  return at::pad(latent, edges, "circular");
}

at::Tensor patches_as_tokens(const at::Tensor& latent, std::int64_t patch) {
  auto whole = whole_patches(latent, patch);
  auto batch = whole.size(0), channels = whole.size(1), frames = whole.size(2);
  auto rows = whole.size(3) / patch, columns = whole.size(4) / patch;
  return whole.reshape({batch, channels, frames, rows, patch, columns, patch})
      .permute({0, 2, 3, 5, 1, 4, 6})
      .reshape({batch, frames * rows * columns, channels * patch * patch});
}

}  // namespace distorch::models
