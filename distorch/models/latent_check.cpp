#include "distorch/models/latent_check.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::models {

void check_latent(const at::Tensor& latent, std::int64_t channels) {
  if (latent.size(1) == channels) return;
  throw Error(
      ErrorKind::Shape, "VAE",
      fmt::format("decodes latents of {} channels, got {}: the latent belongs to another model",
                  channels, latent.size(1)));
}

void check_clip_latent(const at::Tensor& latent, std::int64_t channels) {
  if (latent.dim() == 5 && latent.size(1) == channels) return;
  throw Error(ErrorKind::Shape, "VAE",
              fmt::format("decodes latents of {} channels with frames, got {}: the latent belongs "
                          "to another model",
                          channels, c10::str(latent.sizes())));
}

void check_clip_pixels(const at::Tensor& pixels, std::int64_t channels, std::int64_t cell) {
  if (pixels.dim() == 5 && pixels.size(1) == channels && pixels.size(3) % cell == 0 &&
      pixels.size(4) % cell == 0)
    return;
  throw Error(ErrorKind::Shape, "VAE",
              fmt::format("encodes frames of {} channels whose sides are multiples of {}, got {}",
                          channels, cell, c10::str(pixels.sizes())));
}

}  // namespace distorch::models
