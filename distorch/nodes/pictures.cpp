#include "distorch/nodes/pictures.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/sampling/batch.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::Value;

namespace {

[[noreturn]] void refuse(const Call& call, const char* name, const char* wanted, const Tensor& x) {
  throw Error(ErrorKind::Shape, call.place(),
              fmt::format("input '{}' has the shape [{}], {} is needed", name,
                          fmt::join(x.sizes(), ", "), wanted));
}

}  // namespace

const Tensor& image_input(const Call& call, const char* name) {
  const auto& image = call.get<Tensor>(name);
  if (image.dim() != 4 || image.numel() == 0)
    refuse(call, name, "[batch, height, width, channels]", image);
  return image;
}

Tensor mask_input(const Call& call, const char* name) {
  const auto& mask = call.get<Tensor>(name);
  if (mask.dim() < 2 || mask.numel() == 0) refuse(call, name, "[batch, height, width]", mask);
  return mask.reshape({-1, mask.size(-2), mask.size(-1)});
}

const sampling::Latent& latent_input(const Call& call, const char* name) {
  const auto& latent = call.get<sampling::Latent>(name);
  if (latent.samples.dim() < 4 || latent.samples.numel() == 0)
    refuse(call, name, "[batch, channels, height, width]", latent.samples);
  return latent;
}

void image_out(Call& call, std::size_t slot, Tensor image) {
  call.out(slot, Value::of("IMAGE", image.contiguous()));
}

void mask_out(Call& call, std::size_t slot, Tensor mask) {
  call.out(slot, Value::of("MASK", mask.contiguous()));
}

void latent_out(Call& call, sampling::Latent latent) {
  call.out(0, Value::of("LATENT", std::move(latent)));
}

void latent_out(Call& call, const sampling::Latent& like, Tensor samples) {
  auto latent = like;
  latent.samples = samples.contiguous();
  latent_out(call, std::move(latent));
}

Tensor fit_batch(const Tensor& x, std::int64_t items) { return sampling::repeat_to(x, items); }

Tensor match_channels(const Tensor& image, std::int64_t channels) {
  auto x = image.size(3) == 1 && channels > 1 ? image.expand({-1, -1, -1, 3}) : image;
  if (x.size(3) >= channels) return x.narrow(3, 0, channels);
  auto shape = x.sizes().vec();
  shape[3] = channels - x.size(3);
  return at::cat({x, at::ones(shape, x.options())}, 3);
}

Tensor resize_image(const Tensor& image, const Resize& target) {
  return resize(image.movedim(-1, 1), target).movedim(1, -1).contiguous();
}

Tensor latent_like(const Tensor& latent, const Tensor& like) {
  if (latent.sizes().slice(1) == like.sizes().slice(1)) return latent;
  return resize(latent, {like.size(-1), like.size(-2), "bilinear", true});
}

}  // namespace distorch::nodes
