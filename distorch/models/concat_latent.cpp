#include "distorch/models/concat_latent.h"

#include <cmath>

namespace distorch::models {

using at::Tensor;

namespace {

// What is cut from each end of a side of `size` to bring the picture to another aspect: the side
// keeps `share` of its length. Halves round to even.
std::int64_t cut(std::int64_t size, double share) {
  auto length = static_cast<double>(size);
  return static_cast<std::int64_t>(std::nearbyint((length - length * share) / 2));
}

}  // namespace

Tensor fit_size(const Tensor& x, std::int64_t height, std::int64_t width) {
  if (x.size(2) == height && x.size(3) == width) return x;
  auto aspect = static_cast<double>(x.size(3)) / static_cast<double>(x.size(2));
  auto wanted = static_cast<double>(width) / static_cast<double>(height);
  auto left = aspect > wanted ? cut(x.size(3), wanted / aspect) : 0;
  auto top = aspect < wanted ? cut(x.size(2), aspect / wanted) : 0;
  auto part = x.narrow(2, top, x.size(2) - 2 * top).narrow(3, left, x.size(3) - 2 * left);
  return at::upsample_bilinear2d(part, {height, width}, false);
}

Tensor repeat_batch(const Tensor& tensor, std::int64_t size) {
  if (!tensor.defined() || tensor.size(0) == size) return tensor;
  std::vector<std::int64_t> times(static_cast<std::size_t>(tensor.dim()), 1);
  times[0] = (size + tensor.size(0) - 1) / tensor.size(0);
  return tensor.repeat(times).narrow(0, 0, size);
}

Tensor fit_batch(const Tensor& tensor, std::int64_t size) {
  auto have = tensor.size(0);
  if (have == size) return tensor;
  if (size <= 1) return tensor.narrow(0, 0, size);
  if (tensor.is_meta()) {
    // ATen has no selection without data.
    auto sizes = tensor.sizes().vec();
    sizes[0] = size;
    return at::empty(sizes, tensor.options());
  }
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < size; ++i) {
    double at = size < have
                    ? std::nearbyint(static_cast<double>(i) * static_cast<double>(have - 1) /
                                     static_cast<double>(size - 1))
                    : std::floor((static_cast<double>(i) + 0.5) *
                                 (static_cast<double>(have) / static_cast<double>(size)));
    rows.push_back(std::min(static_cast<std::int64_t>(at), have - 1));
  }
  return tensor.index_select(0, at::tensor(rows, at::kLong).to(tensor.device()));
}

Tensor fit_to_noise(const Tensor& x, const Tensor& noise) {
  return fit_batch(fit_size(x, noise.size(2), noise.size(3)), noise.size(0));
}

Tensor tensor_of(const sampling::ConditioningItem& item, const char* name, const Tensor& noise) {
  auto at = item.tensors.find(name);
  return at == item.tensors.end() ? Tensor() : at->second.to(noise.device(), at::kFloat);
}

Tensor inpaint_concat(const sampling::ConditioningItem& item,
                      const sampling::EncodeContext& context, const LatentFormat& format,
                      const std::array<double, 4>& blank) {
  const auto& noise = context.noise;
  auto mask = tensor_of(item, "concat_mask", noise);
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined()) {
    auto gray = at::ones_like(noise);
    for (std::int64_t c = 0; c < std::min<std::int64_t>(4, noise.size(1)); ++c)
      gray.select(1, c).mul_(blank[c]);
    return at::cat({at::ones_like(noise.narrow(1, 0, 1)), gray}, 1);
  }
  if (mask.dim() == noise.dim()) mask = mask.narrow(1, 0, 1);
  mask =
      fit_size(mask.reshape({-1, 1, mask.size(-2), mask.size(-1)}), noise.size(2), noise.size(3));
  auto given = tensor_of(item, "concat_latent_image", noise);
  auto image = given.defined() ? format.into_network(given) : context.latent_image;
  return at::cat({fit_batch(mask.round(), noise.size(0)), fit_to_noise(image, noise)}, 1);
}

Tensor edit_concat(const sampling::ConditioningItem& item, const sampling::EncodeContext& context) {
  auto image = tensor_of(item, "concat_latent_image", context.noise);
  return fit_to_noise(image.defined() ? image : at::zeros_like(context.noise), context.noise);
}

}  // namespace distorch::models
