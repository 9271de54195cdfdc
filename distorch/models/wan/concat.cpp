#include "distorch/models/wan/concat.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/concat_latent.h"

namespace distorch::models::wan {

using at::Tensor;

namespace {

constexpr std::int64_t kMaskChannels = 4;

/// x [B, C, T, h, w], every frame in the noise's height and width, in its batch.
Tensor fitted(const Tensor& x, const Tensor& noise) {
  auto batch = x.size(0), frames = x.size(2);
  auto pictures = fit_size(x.transpose(1, 2).flatten(0, 1), noise.size(3), noise.size(4));
  return fit_batch(pictures.unflatten(0, {batch, frames}).transpose(1, 2), noise.size(0));
}

/// Error(Shape) where a latent is not of the model's VAE: nodes give one, or two side by side.
void check_given(const Tensor& image, const LatentFormat& format) {
  if (image.size(1) % format.channels == 0 && image.size(1) <= 2 * format.channels) return;
  throw Error(ErrorKind::Shape, "concat_latent_image",
              fmt::format("has {} channels, and this Wan model works with latents of {}: make the "
                          "conditioning with the VAE of Wan {}",
                          image.size(1), format.channels, format.channels == 16 ? "2.1" : "2.2"));
}

Tensor into_network(const Tensor& image, const LatentFormat& format) {
  std::vector<Tensor> parts;
  for (const auto& part : image.split(format.channels, 1))
    parts.push_back(part.size(1) == format.channels ? format.into_network(part) : part);
  return at::cat(parts, 1);
}

/// Channels that say which frames are given.
Tensor mask_of(const sampling::ConditioningItem& item, const sampling::EncodeContext& context) {
  const auto& noise = context.noise;
  auto mask = tensor_of(item, "concat_mask", noise);
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined()) {
    auto sizes = noise.sizes().vec();
    sizes[1] = kMaskChannels;
    return at::zeros(sizes, noise.options());
  }
  if (mask.dim() == 4) mask = mask.unsqueeze(0);
  if (mask.size(1) != kMaskChannels) mask = mask.mean(1, /*keepdim=*/true);
  mask = fitted(1.0 - mask.to(noise.scalar_type()), noise);
  if (auto missing = noise.size(2) - mask.size(2); missing > 0)
    mask = at::constant_pad_nd(mask, {0, 0, 0, 0, 0, missing});
  return mask.size(1) == 1 ? mask.repeat({1, kMaskChannels, 1, 1, 1}) : mask;
}

}  // namespace

Tensor concat_of(const sampling::ConditioningItem& item, const sampling::EncodeContext& context,
                 const LatentFormat& format, std::int64_t channels, bool image_to_video) {
  const auto& noise = context.noise;
  auto image = tensor_of(item, "concat_latent_image", noise);
  if (image.defined()) {
    check_given(image, format);
    image = into_network(fitted(image, noise), format);
  } else {
    auto sizes = noise.sizes().vec();
    sizes[1] = channels;
    image = at::zeros(sizes, noise.options());
  }
  if (channels != image.size(1) + kMaskChannels && (!image_to_video || channels == image.size(1)))
    return image;
  if (image.size(1) > channels - kMaskChannels)
    image = image.narrow(1, 0, channels - kMaskChannels);
  auto mask = mask_of(item, context);
  auto at = item.numbers.find("concat_mask_index");
  if (at == item.numbers.end() || at->second == 0) return at::cat({mask, image}, 1);
  auto first = static_cast<std::int64_t>(at->second);
  return at::cat({image.narrow(1, 0, first), mask, image.narrow(1, first, image.size(1) - first)},
                 1);
}

}  // namespace distorch::models::wan
