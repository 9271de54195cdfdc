#include "distorch/models/vae/tiled_video.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/vae/clip.h"

namespace distorch::models::vae {

using at::Tensor;

namespace {

using Sizes = std::array<std::int64_t, 3>;  // frames, height, width

/// How sizes and positions of the input lie to those of the output.
struct Resize {
  const VaeShape& shape;
  bool decode;

  std::int64_t size(std::size_t dim, std::int64_t value) const {
    if (dim == 0) return decode ? frames_of(shape, value) : latent_frames_of(shape, value);
    return position(dim, value);
  }
  // Halves to even, as Python rounds.
  std::int64_t position(std::size_t dim, std::int64_t value) const {
    auto factor = dim == 0 ? shape.time_downscale : shape.downscale;
    if (decode) return factor * value;
    return std::llrint(static_cast<double>(value) / static_cast<double>(factor));
  }
  std::int64_t channels() const { return decode ? shape.image_channels : shape.latent_channels; }
};

std::vector<std::int64_t> starts(std::int64_t size, std::int64_t tile, std::int64_t overlap) {
  if (size <= tile) return {0};
  std::vector<std::int64_t> result;
  for (std::int64_t at = 0; at < size - overlap; at += tile - overlap) result.push_back(at);
  return result;
}

/// Weights of one tile's result [1, 1, t, h, w]: 1 inside, rising over the overlap from every side.
Tensor feathered(const Tensor& result, const Sizes& feathers) {
  auto mask = at::ones({1, 1, result.size(2), result.size(3), result.size(4)});
  for (std::int64_t dim = 2; dim < 5; ++dim) {
    auto size = mask.size(dim), feather = feathers[static_cast<std::size_t>(dim - 2)];
    if (feather >= size) continue;
    for (std::int64_t t = 0; t < feather; ++t) {
      auto weight = static_cast<double>(t + 1) / static_cast<double>(feather);
      mask.narrow(dim, t, 1).mul_(weight);
      mask.narrow(dim, size - 1 - t, 1).mul_(weight);
    }
  }
  return mask;
}

class Tiles {
 public:
  Tiles(const Tensor& samples, const VideoTile& tile)
      : tile_{tile.frames, tile.side, tile.side},
        overlap_{tile.frame_overlap, tile.overlap, tile.overlap} {
    for (std::size_t d = 0; d < 3; ++d) {
      size_[d] = samples.size(static_cast<std::int64_t>(d) + 2);
      if (overlap_[d] < 0 || (size_[d] > tile_[d] && overlap_[d] >= tile_[d]))
        throw Error(
            ErrorKind::Usage, "tiled VAE",
            fmt::format("an overlap of {} leaves no room in a tile of {}", overlap_[d], tile_[d]));
      starts_[d] = starts(size_[d], tile_[d], overlap_[d]);
    }
  }
  std::int64_t count() const {
    return static_cast<std::int64_t>(starts_[0].size() * starts_[1].size() * starts_[2].size());
  }

  /// Calls `one` for each tile's start and size.
  void each(const std::function<void(const Sizes& start, const Sizes& size)>& one) const {
    for (auto t : starts_[0])
      for (auto y : starts_[1])
        for (auto x : starts_[2]) {
          Sizes start = {t, y, x}, size{};
          for (std::size_t d = 0; d < 3; ++d) size[d] = std::min(tile_[d], size_[d] - start[d]);
          one(start, size);
        }
  }
  const Sizes& overlap() const { return overlap_; }

 private:
  Sizes tile_, overlap_, size_{};
  std::array<std::vector<std::int64_t>, 3> starts_;
};

Tensor part_of(const Tensor& whole, const Sizes& start, const Sizes& size) {
  auto part = whole;
  for (std::size_t d = 0; d < 3; ++d)
    part = part.narrow(static_cast<std::int64_t>(d) + 2, start[d], size[d]);
  return part;
}

Tensor tiled(const Tensor& samples, const std::function<Tensor(const Tensor&)>& function,
             const VideoTile& tile, const Resize& resize, const TileProgress& progress) {
  Tiles tiles(samples, tile);
  auto total = samples.size(0) * tiles.count();
  std::int64_t done = 0;
  auto tile_done = [&] {
    if (progress) progress(++done, total);
  };
  Sizes out_size{}, feathers{};
  for (std::size_t d = 0; d < 3; ++d) {
    out_size[d] = resize.size(d, samples.size(static_cast<std::int64_t>(d) + 2));
    feathers[d] = resize.size(d, tiles.overlap()[d]);
  }
  std::vector<Tensor> results;
  for (const auto& sample : samples.split(1)) {
    if (tiles.count() == 1) {
      results.push_back(function(sample));
      tile_done();
      continue;
    }
    auto sum = at::zeros({1, resize.channels(), out_size[0], out_size[1], out_size[2]});
    auto weights = at::zeros({1, 1, out_size[0], out_size[1], out_size[2]});
    tiles.each([&](const Sizes& start, const Sizes& size) {
      auto result = function(part_of(sample, start, size));
      auto mask = feathered(result, feathers);
      Sizes at{}, extent{};
      for (std::size_t d = 0; d < 3; ++d) {
        at[d] = resize.position(d, start[d]);
        extent[d] = mask.size(static_cast<std::int64_t>(d) + 2);
      }
      part_of(sum, at, extent).add_(result * mask);
      part_of(weights, at, extent).add_(mask);
      tile_done();
    });
    results.push_back(sum.div_(weights));
  }
  return at::cat(results);
}

}  // namespace

std::int64_t frames_of(const VaeShape& shape, std::int64_t latent_frames) {
  return std::max<std::int64_t>(0, latent_frames * shape.time_downscale - shape.time_downscale + 1);
}

std::int64_t latent_frames_of(const VaeShape& shape, std::int64_t frames) {
  return (frames + shape.time_downscale - 1) / shape.time_downscale;
}

Tensor decode_tiled_video(const VaeNetwork& vae, const Tensor& latent, const VideoTile& tile,
                          const TileProgress& progress) {
  auto shape = vae.shape();
  return tiled(
      latent, [&](const Tensor& part) { return decode_clips(vae, part, tile.device); }, tile,
      {shape, true}, progress);
}

Tensor encode_tiled_video(const VaeNetwork& vae, const Tensor& frames, const VideoTile& tile,
                          const TileProgress& progress) {
  auto shape = vae.shape();
  return tiled(
      frames, [&](const Tensor& part) { return encode_clips(vae, part, tile.device); }, tile,
      {shape, false}, progress);
}

}  // namespace distorch::models::vae
