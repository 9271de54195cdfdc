#include "distorch/models/whole_patches.h"

namespace distorch::models {

at::Tensor whole_patches(const at::Tensor& latent, std::int64_t patch) {
  auto missing = [&](std::int64_t size) { return (patch - size % patch) % patch; };
  auto down = missing(latent.size(2)), right = missing(latent.size(3));
  if (down == 0 && right == 0) return latent;
  return at::pad(latent, {0, right, 0, down}, "circular");
}

}  // namespace distorch::models
