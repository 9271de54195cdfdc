#include "distorch/models/vae/tiled.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "distorch/base/error.h"

namespace distorch::models::vae {

using at::Tensor;

namespace {

// Halves to even, as Python rounds.
std::int64_t scaled(double factor, std::int64_t size) {
  return std::llrint(factor * static_cast<double>(size));
}

// Where tiles start along one side.
std::vector<std::int64_t> starts(std::int64_t size, std::int64_t tile, std::int64_t overlap) {
  if (size <= tile) return {0};
  std::vector<std::int64_t> result;
  for (std::int64_t at = 0; at < size - overlap; at += tile - overlap) result.push_back(at);
  return result;
}

// Weights of one tile's result [1, C, h, w]: 1 inside, rising over `feather` cells from every side.
Tensor feathered(const Tensor& result, std::int64_t feather) {
  auto mask = at::ones_like(result);
  for (std::int64_t dim : {2, 3}) {
    auto size = mask.size(dim);
    if (feather >= size) continue;
    for (std::int64_t t = 0; t < feather; ++t) {
      auto weight = static_cast<double>(t + 1) / static_cast<double>(feather);
      mask.narrow(dim, t, 1).mul_(weight);
      mask.narrow(dim, size - 1 - t, 1).mul_(weight);
    }
  }
  return mask;
}

Tensor blend_tiles(const Tensor& sample, const std::function<Tensor(const Tensor&)>& function,
                   const TileSize& tile, const TileScale& scale,
                   const std::function<void()>& tile_done) {
  auto height = sample.size(2), width = sample.size(3);
  auto sum =
      at::zeros({1, scale.out_channels, scaled(scale.factor, height), scaled(scale.factor, width)});
  auto weights = at::zeros_like(sum);
  auto feather = scaled(scale.factor, tile.overlap);
  for (auto y : starts(height, tile.height, tile.overlap)) {
    for (auto x : starts(width, tile.width, tile.overlap)) {
      auto part = sample.narrow(2, y, std::min(tile.height, height - y))
                      .narrow(3, x, std::min(tile.width, width - x));
      auto result = function(part).to(at::kCPU, at::kFloat);
      auto mask = feathered(result, feather);
      auto place = [&](const Tensor& t) {
        return t.narrow(2, scaled(scale.factor, y), mask.size(2))
            .narrow(3, scaled(scale.factor, x), mask.size(3));
      };
      place(sum).add_(result * mask);
      place(weights).add_(mask);
      if (tile_done) tile_done();
    }
  }
  return sum / weights;
}

// The three shapes of tiles, in the order in which their results are added up.
std::array<TileSize, 3> passes(const TileSize& t, bool decode) {
  TileSize tall{t.width / 2, t.height * 2, t.overlap}, wide{t.width * 2, t.height / 2, t.overlap};
  return decode ? std::array{tall, wide, t} : std::array{t, wide, tall};
}

Tensor mean_of_passes(const Tensor& samples, const std::function<Tensor(const Tensor&)>& function,
                      const std::array<TileSize, 3>& tiles, const TileScale& scale,
                      const TileProgress& progress) {
  std::int64_t total = 0, done = 0;
  for (const auto& tile : tiles) {
    if (tile.overlap < 0 || tile.overlap >= tile.width || tile.overlap >= tile.height)
      throw Error(ErrorKind::Usage, "tiled VAE",
                  fmt::format("an overlap of {} leaves no room in tiles of {}x{} (the three passes "
                              "halve the sides in turn)",
                              tile.overlap, tile.width, tile.height));
    total += samples.size(0) * count_tiles(samples.size(3), samples.size(2), tile);
  }
  Tensor sum;
  for (const auto& tile : tiles) {
    auto pass = tiled_scale(samples, function, tile, scale, [&] {
      if (progress) progress(++done, total);
    });
    sum = sum.defined() ? sum + pass : pass;
  }
  return sum / 3.0;
}

}  // namespace

std::int64_t count_tiles(std::int64_t width, std::int64_t height, const TileSize& tile) {
  return static_cast<std::int64_t>(starts(width, tile.width, tile.overlap).size() *
                                   starts(height, tile.height, tile.overlap).size());
}

Tensor tiled_scale(const Tensor& samples, const std::function<Tensor(const Tensor&)>& function,
                   const TileSize& tile, const TileScale& scale,
                   const std::function<void()>& tile_done) {
  std::vector<Tensor> results;
  for (const auto& sample : samples.split(1)) {
    if (sample.size(2) <= tile.height && sample.size(3) <= tile.width) {
      results.push_back(function(sample).to(at::kCPU, at::kFloat));
      if (tile_done) tile_done();
    } else {
      results.push_back(blend_tiles(sample, function, tile, scale, tile_done));
    }
  }
  return at::cat(results);
}

Tensor decode_tiled(const VaeNetwork& vae, const Tensor& latent, const TileSize& tile,
                    const TileProgress& progress) {
  auto s = vae.shape();
  TileScale scale{static_cast<double>(s.downscale), s.image_channels};
  return mean_of_passes(
      latent, [&](const Tensor& part) { return vae.decode_pixels(part); }, passes(tile, true),
      scale, progress);
}

Tensor encode_tiled(const VaeNetwork& vae, const Tensor& image, const TileSize& tile,
                    const TileProgress& progress) {
  auto s = vae.shape();
  TileScale scale{1.0 / static_cast<double>(s.downscale), s.latent_channels};
  return mean_of_passes(
      image, [&](const Tensor& part) { return vae.encode_mean(part); }, passes(tile, false), scale,
      progress);
}

}  // namespace distorch::models::vae
