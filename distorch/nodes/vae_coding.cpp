#include "distorch/nodes/vae_coding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/models/vae/clip.h"
#include "distorch/models/vae/tiled_video.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::vae::TileProgress;
using models::vae::TileSize;
using models::vae::VideoTile;

namespace {

/// [B, 3, (T,) H, W] -> [B·T, H, W, 3].
Tensor to_image(const Tensor& decoded) {
  auto pixels = ((decoded.to(at::kCPU, at::kFloat) + 1.0) / 2.0).clamp(0.0, 1.0).movedim(1, -1);
  return pixels.reshape({-1, pixels.size(-3), pixels.size(-2), pixels.size(-1)}).contiguous();
}

std::vector<std::int64_t> one_of(const Tensor& batch) {
  auto sizes = batch.sizes().vec();
  sizes[0] = 1;
  return sizes;
}

/// The shape of one tile of the widest pass.
std::vector<std::int64_t> tile_shape(const Tensor& whole, std::int64_t frames,
                                     const TileSize& tile) {
  auto sizes = one_of(whole);
  auto dims = sizes.size();
  if (dims == 5) sizes[2] = std::min(sizes[2], frames);
  sizes[dims - 2] = std::min(sizes[dims - 2], tile.height);
  sizes[dims - 1] = std::min(sizes[dims - 1], tile.width);
  return sizes;
}

VideoTile video_tile(const TileSize& tile, const VaeCoding::Frames& frames, at::Device device) {
  return {tile.height, tile.overlap, frames.at_once, frames.overlap, device};
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

std::string VaeCoding::file() const { return loaded_.weights->checkpoint().path(); }

at::Device VaeCoding::device() const {
  return device::to_torch(loaded_.weights->options().compute);
}

/// A run over input of `shape`. A video is profiled with as many frames as make a difference for
/// memory; the others come on top as further uses of the weights.
streaming::Engine::Use VaeCoding::prepare(bool decode, std::vector<std::int64_t> shape) {
  using namespace models::vae;
  streaming::RunNeeds needs;
  if (const auto form = this->shape(); video() && !form.whole_clips) {
    auto groups = decode ? decode_groups(form, shape[2]) : encode_groups(form, shape[2]);
    auto profiled = std::min(groups, kSteadyGroups);
    shape[2] = decode ? profiled : frames_of(form, profiled);
    needs.steps = static_cast<double>(groups) / static_cast<double>(profiled);
  }
  needs.key = fmt::format("{} {}", decode ? "decode" : "encode", fmt::join(shape, "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded_.make();
    return streaming::profile_model(
        *loaded_.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto input = at::empty(shape, at::TensorOptions().device(device).dtype(at::kFloat));
          auto drop = [](const Tensor&) {};
          if (video() && decode)
            each_decoded(*fresh, input, device, drop);
          else if (video())
            each_encoded(*fresh, input, device, drop);
          else if (decode)
            fresh->decode_pixels(input);
          else
            fresh->encode_mean(input);
        });
  };
  return engine_.prepare(loaded_.weights, needs);
}

/// What decode() and encode() give where nothing is computed: the shape counts.
Tensor VaeCoding::blank_image(const Tensor& latent) const {
  auto frames = video() ? models::vae::frames_of(shape(), latent.size(2)) : 1;
  return at::zeros(
      {latent.size(0) * frames, latent.size(-2) * factor(), latent.size(-1) * factor(), 3});
}
Tensor VaeCoding::blank_latent(const Tensor& pixels) const {
  auto sizes = pixels.sizes().vec();
  sizes[1] = shape().latent_channels;
  if (video()) sizes[2] = models::vae::latent_frames_of(shape(), sizes[2]);
  for (auto dim : {sizes.size() - 2, sizes.size() - 1}) sizes[dim] /= factor();
  return at::zeros(sizes);
}

Tensor VaeCoding::fitting_latent(const Tensor& latent) const {
  auto channels = shape().latent_channels;
  auto fails = [&](const std::string& why) { throw Error(ErrorKind::Shape, file(), why); };
  if (latent.dim() < 4 || latent.size(1) != channels)
    fails(
        fmt::format("decodes latents of {} channels, got {}: the latent belongs to another model, "
                    "load the VAE of that",
                    channels, latent.dim() < 2 ? 0 : latent.size(1)));
  if (video()) return latent.dim() == 4 ? latent.unsqueeze(2) : latent;
  if (latent.dim() == 4) return latent;
  if (latent.size(2) != 1)
    fails(fmt::format("decodes pictures, got a latent of {} frames: it belongs to a video model",
                      latent.size(2)));
  return latent.squeeze(2);
}

/// Every clip's frames one behind the other [B · T, H, W, 3].
Tensor VaeCoding::decoded_clips(const Tensor& latent) const {
  auto image = blank_image(latent);
  std::int64_t first = 0;
  for (const auto& clip : latent.split(1))
    models::vae::each_decoded(*loaded_.network, clip, device(), [&](const Tensor& pixels) {
      auto frames = to_image(pixels);
      image.narrow(0, first, frames.size(0)).copy_(frames);
      first += frames.size(0);
    });
  return image;
}

Tensor VaeCoding::decode(const Tensor& given) {
  auto latent = fitting_latent(given);
  return whole_or_tiled(
      "decoding",
      [&] {
        auto use = prepare(true, one_of(latent));
        if (engine_.plan_only()) return blank_image(latent);
        if (video()) return decoded_clips(latent);
        std::vector<Tensor> images;
        for (const auto& one : latent.split(1)) {
          throw_if_interrupted();
          images.push_back(to_image(loaded_.network->decode_pixels(one.to(device()))));
        }
        return at::cat(images);
      },
      [&] {
        auto side = 256 / factor();
        return decode_tiled(latent, video() ? TileSize{side, side, side / 4} : TileSize{}, {});
      });
}

Tensor VaeCoding::decode_raw(const Tensor& given) {
  auto latent = fitting_latent(given);
  auto use = prepare(true, one_of(latent));
  if (engine_.plan_only())
    return at::zeros({1, 3, models::vae::frames_of(shape(), latent.size(2)),
                      latent.size(3) * factor(), latent.size(4) * factor()});
  std::vector<Tensor> parts;
  models::vae::each_decoded(*loaded_.network, latent, device(), [&](const Tensor& pixels) {
    parts.push_back(pixels.to(at::kCPU, at::kFloat));
  });
  return at::cat(parts, 2);
}

Tensor VaeCoding::decode_tiled(const Tensor& given, const TileSize& tile, const Frames& frames,
                               const TileProgress& progress) {
  auto latent = fitting_latent(given);
  // The widest of the three passes over pictures: two tiles long, half a tile high.
  auto use = prepare(true, tile_shape(latent, frames.at_once, tile));
  if (engine_.plan_only()) return blank_image(latent);
  const auto& network = *loaded_.network;
  if (video())
    return to_image(models::vae::decode_tiled_video(network, latent,
                                                    video_tile(tile, frames, device()), progress));
  return to_image(models::vae::decode_tiled(network, latent.to(device()), tile, progress));
}

Tensor VaeCoding::pixels_of(const Tensor& given) const {
  // Of a plan only sizes count.
  const auto image = engine_.plan_only() ? given.to(at::kMeta) : given;
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
  pixels = pixels.movedim(-1, 1) * 2.0 - 1.0;
  return video() ? pixels.movedim(1, 0).unsqueeze(0) : pixels;
}

Tensor VaeCoding::encode(const Tensor& image) {
  auto pixels = pixels_of(image);
  return whole_or_tiled(
      "encoding",
      [&] {
        auto use = prepare(false, one_of(pixels));
        if (engine_.plan_only()) return blank_latent(pixels);
        if (video()) return models::vae::encode_clips(*loaded_.network, pixels, device());
        std::vector<Tensor> latents;
        for (const auto& one : pixels.split(1)) {
          throw_if_interrupted();
          latents.push_back(
              loaded_.network->encode_mean(one.contiguous().to(device())).to(at::kCPU, at::kFloat));
        }
        return at::cat(latents);
      },
      [&] {
        return encode_tiled(image, video() ? TileSize{256, 256, 64} : TileSize{512, 512, 64}, {});
      });
}

Tensor VaeCoding::encode_tiled(const Tensor& image, const TileSize& tile, const Frames& frames,
                               const TileProgress& progress) {
  auto pixels = pixels_of(image);
  if (video()) {
    // Frames that make no whole latent frame are left out.
    auto step = shape().time_downscale;
    pixels = pixels.narrow(2, 0, (pixels.size(2) - 1) / step * step + 1);
  }
  auto use = prepare(false, tile_shape(pixels, frames.at_once, tile));
  if (engine_.plan_only()) return blank_latent(pixels);
  const auto& network = *loaded_.network;
  if (video())
    return models::vae::encode_tiled_video(network, pixels, video_tile(tile, frames, device()),
                                           progress);
  return models::vae::encode_tiled(network, pixels.contiguous().to(device()), tile, progress)
      .to(at::kCPU, at::kFloat);
}

VaeCoding vae_coding_of(graph::Call& call) {
  const auto& vae = call.get<Vae>("vae");
  if (!vae.loaded)
    throw Error(
        ErrorKind::Usage, call.place(),
        "the checkpoint that 'vae' comes from holds no autoencoder; load one with VAELoader");
  return {vae, call.context<streaming::Engine>()};
}

}  // namespace distorch::nodes
