#include "distorch/nodes/vae_coding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::vae::TileProgress;
using models::vae::TileSize;

namespace {

Tensor to_image(const Tensor& decoded) {
  return ((decoded.to(at::kCPU, at::kFloat) + 1.0) / 2.0)
      .clamp(0.0, 1.0)
      .movedim(1, -1)
      .contiguous();
}

/// Calls `whole`; where memory runs out, says so and calls `tiled`.
Tensor whole_or_tiled(const std::string& what, const std::function<Tensor()>& whole,
                      const std::function<Tensor()>& tiled) {
  try {
    return whole();
  } catch (const std::exception& problem) {
    if (!device::is_out_of_memory(problem)) throw;
  }
  log::warn("{} does not fit into memory at once, it is done in tiles", what);
  return tiled();
}

}  // namespace

at::Device VaeCoding::device() const {
  return device::to_torch(loaded_.weights->options().compute);
}

streaming::Engine::Use VaeCoding::prepare(bool decode, at::IntArrayRef shape) {
  streaming::RunNeeds needs;
  needs.key = fmt::format("{} {}", decode ? "decode" : "encode", fmt::join(shape, "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded_.make();
    return streaming::profile_model(
        *loaded_.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto input = at::empty(shape, at::TensorOptions().device(device).dtype(at::kFloat));
          if (decode)
            fresh->decode_pixels(input);
          else
            fresh->encode_mean(input);
        });
  };
  return engine_.prepare(loaded_.weights, needs);
}

/// What decode() and encode() give where nothing is computed: the shape counts.
Tensor VaeCoding::blank_image(const Tensor& latent) const {
  return at::zeros({latent.size(0), latent.size(2) * factor(), latent.size(3) * factor(), 3});
}
Tensor VaeCoding::blank_latent(const Tensor& pixels) const {
  return at::zeros({pixels.size(0), loaded_.network->shape().latent_channels,
                    pixels.size(2) / factor(), pixels.size(3) / factor()});
}

Tensor VaeCoding::decode(const Tensor& latent) {
  return whole_or_tiled(
      "decoding",
      [&] {
        auto use = prepare(true, {1, latent.size(1), latent.size(2), latent.size(3)});
        if (engine_.plan_only()) return blank_image(latent);
        std::vector<Tensor> images;
        for (const auto& one : latent.split(1)) {
          throw_if_interrupted();
          images.push_back(to_image(loaded_.network->decode_pixels(one.to(device()))));
        }
        return at::cat(images);
      },
      [&] { return decode_tiled(latent, {}); });
}

Tensor VaeCoding::decode_tiled(const Tensor& latent, const TileSize& tile,
                               const TileProgress& progress) {
  // The widest of the three passes: two tiles long, half a tile high.
  auto use = prepare(true, {1, latent.size(1), std::min(latent.size(2), tile.height),
                            std::min(latent.size(3), tile.width)});
  if (engine_.plan_only()) return blank_image(latent);
  return to_image(models::vae::decode_tiled(*loaded_.network, latent.to(device()), tile, progress));
}

Tensor VaeCoding::pixels_of(const Tensor& image) const {
  if (image.dim() != 4 || image.size(3) < 3)
    throw Error(ErrorKind::Shape, "image",
                "must have batch, height, width and at least 3 channels");
  auto pixels = image.narrow(3, 0, 3);
  for (int dim : {1, 2}) {
    auto size = pixels.size(dim), kept = size / factor() * factor();
    if (kept == 0)
      throw Error(ErrorKind::Shape, "image",
                  fmt::format("is smaller than the {} pixels of a latent cell", factor()));
    if (kept != size) pixels = pixels.narrow(dim, size % factor() / 2, kept);
  }
  return pixels.movedim(-1, 1) * 2.0 - 1.0;
}

Tensor VaeCoding::encode(const Tensor& image) {
  auto pixels = pixels_of(image);
  return whole_or_tiled(
      "encoding",
      [&] {
        auto use = prepare(false, {1, 3, pixels.size(2), pixels.size(3)});
        if (engine_.plan_only()) return blank_latent(pixels);
        std::vector<Tensor> latents;
        for (const auto& one : pixels.split(1)) {
          throw_if_interrupted();
          latents.push_back(
              loaded_.network->encode_mean(one.contiguous().to(device())).to(at::kCPU, at::kFloat));
        }
        return at::cat(latents);
      },
      [&] { return encode_tiled(image, {512, 512, 64}); });
}

Tensor VaeCoding::encode_tiled(const Tensor& image, const TileSize& tile,
                               const TileProgress& progress) {
  auto pixels = pixels_of(image);
  auto use = prepare(
      false, {1, 3, std::min(pixels.size(2), tile.height), std::min(pixels.size(3), tile.width)});
  if (engine_.plan_only()) return blank_latent(pixels);
  return models::vae::encode_tiled(*loaded_.network, pixels.contiguous().to(device()), tile,
                                   progress)
      .to(at::kCPU, at::kFloat);
}

}  // namespace distorch::nodes
