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

}  // namespace distorch::models
