// Videos to latents and back, in the tiles of the HunyuanVideoWrapper.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Latent;

namespace {

constexpr std::int64_t kPixels = 8, kFrames = 4;  // of a latent cell
constexpr double kOverlap = 0.25;

/// Sizes along one direction, in units of what goes in and of what comes out.
struct Tiles {
  std::int64_t size, stride;  // in
  std::int64_t blend, kept;   // out
};

/// A node's tiles, in latent cells.
struct TileSizes {
  explicit TileSizes(const Call& call) : used(call.boolean("enable_vae_tiling")) {
    if (call.boolean("auto_tile_size")) return;
    constexpr std::int64_t usual = 64;
    const auto frames = call.integer("temporal_tiling_sample_size");
    time = std::max<std::int64_t>(1, frames / kFrames);
    side = std::max<std::int64_t>(1, call.integer("spatial_tile_sample_min_size") / kPixels);
    if (frames != usual) time_overlap = 0;
  }
  bool used;
  std::int64_t time = 16, side = 32;
  double time_overlap = kOverlap;
};

std::int64_t part(std::int64_t size, double factor) {
  return static_cast<std::int64_t>(static_cast<double>(size) * factor);
}

/// `from`, `to`: units of a latent cell that go in and come out.
Tiles tiles_of(std::int64_t cells, double overlap, std::int64_t from, std::int64_t to) {
  const auto blend = part(cells * to, overlap);
  return {cells * from, std::max<std::int64_t>(1, part(cells * from, 1 - overlap)), blend,
          cells * to - blend};
}

/// The start of `tile` goes over from the end of the one before it, in place.
void blend_in(const Tensor& tile, const Tensor& before, std::int64_t dim, std::int64_t extent) {
  extent = std::min({extent, tile.size(dim), before.size(dim)});
  if (extent == 0) return;
  std::vector<std::int64_t> view(static_cast<std::size_t>(tile.dim()), 1);
  view[static_cast<std::size_t>(dim)] = extent;
  const auto ramp =
      (at::arange(extent, at::TensorOptions(at::kFloat)) / static_cast<double>(extent)).view(view);
  auto start = tile.narrow(dim, 0, extent);
  start.copy_(before.narrow(dim, before.size(dim) - extent, extent) * (1 - ramp) + start * ramp);
}

Tensor up_to(const Tensor& x, std::int64_t dim, std::int64_t count) {
  return x.narrow(dim, 0, std::min(count, x.size(dim)));
}

using Coding = std::function<Tensor(const Tensor&)>;

/// A clip in tiles of height and width: x [1, C, T, h, w].
Tensor in_space(const Tensor& x, const Tiles& tiles, const Coding& code) {
  if (x.size(3) <= tiles.size && x.size(4) <= tiles.size) return code(x);
  auto cut = [&](const Tensor& from, std::int64_t dim, std::int64_t first) {
    return from.narrow(dim, first, std::min(tiles.size, from.size(dim) - first));
  };
  std::vector<Tensor> above, rows;
  for (std::int64_t top = 0; top < x.size(3); top += tiles.stride) {
    std::vector<Tensor> row, shown;
    for (std::int64_t left = 0; left < x.size(4); left += tiles.stride) {
      throw_if_interrupted();
      auto tile = code(cut(cut(x, 3, top), 4, left).contiguous()).clone();
      if (top > 0) blend_in(tile, above[row.size()], 3, tiles.blend);
      if (left > 0) blend_in(tile, row.back(), 4, tiles.blend);
      shown.push_back(up_to(up_to(tile, 3, tiles.kept), 4, tiles.kept));
      row.push_back(tile);
    }
    rows.push_back(at::cat(shown, 4));
    above = std::move(row);
  }
  return at::cat(rows, 3);
}

/// A clip in tiles of time, which begin one frame early so that there is something before them.
Tensor in_time(const Tensor& x, const Tiles& tiles, const Coding& code) {
  if (x.size(2) <= tiles.size) return code(x);
  std::vector<Tensor> shown;
  Tensor before;
  for (std::int64_t first = 0; first < x.size(2); first += tiles.stride) {
    auto tile =
        code(x.narrow(2, first, std::min(tiles.size + 1, x.size(2) - first)).contiguous()).clone();
    if (first > 0) {
      tile = tile.narrow(2, 1, tile.size(2) - 1);
      blend_in(tile, before, 2, tiles.blend);
    }
    shown.push_back(up_to(tile, 2, tiles.kept + (first > 0 ? 0 : 1)));
    before = tile;
  }
  return at::cat(shown, 2);
}

/// Frames of another mean brightness than most get nearer to that.
Tensor balanced(const Tensor& frames) {
  constexpr double least = 0.5, most = 1.4;
  const auto means = frames.mean({1, 2, 3});
  const auto factors = (means.median() / means).clamp(least, most);
  return frames * at::where(means == 0, at::ones_like(means), factors).view({-1, 1, 1, 1});
}

Tensor latent_of(const Call& call) {
  auto latent = latent_input(call, "samples").samples;
  if (latent.dim() == 4) latent = latent.unsqueeze(2);
  const auto skipped = call.integer("skip_latents");
  if (skipped >= latent.size(2))
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("skips {} latent frames, and there are {}: none is left", skipped,
                            latent.size(2)));
  return latent.narrow(2, skipped, latent.size(2) - skipped);
}

void run_decode(Call& call) {
  auto coding = vae_coding_of(call);
  const TileSizes sizes(call);
  const auto latent = latent_of(call);
  const Coding whole = [&](const Tensor& x) { return coding.decode_raw(x); };
  const Coding clip = [&](const Tensor& x) {
    return sizes.used ? in_space(x, tiles_of(sizes.side, kOverlap, 1, kPixels), whole) : whole(x);
  };
  std::vector<Tensor> videos;
  for (const auto& one : latent.split(1)) {
    auto pixels = sizes.used
                      ? in_time(one, tiles_of(sizes.time, sizes.time_overlap, 1, kFrames), clip)
                      : clip(one);
    videos.push_back((pixels / 2 + 0.5).clamp(0, 1).select(0, 0).permute({1, 2, 3, 0}));
  }
  auto frames = at::cat(videos).contiguous();
  if (call.boolean("balance_brightness") && frames.size(0) > 1)
    frames = balanced(frames).clamp(0, 1);
  image_out(call, 0, frames);
}

/// Frames [T, H, W, 3] 0..1 -> latents.
Tensor encoded(Call& call, const Tensor& image) {
  auto coding = vae_coding_of(call);
  const TileSizes sizes(call);
  // Sides that make no whole cells are cut around the middle.
  auto frames = match_channels(image, 3);
  for (int dim : {1, 2}) {
    const auto left = frames.size(dim) % kPixels;
    frames = frames.narrow(dim, left / 2, frames.size(dim) - left);
  }
  const Coding whole = [&](const Tensor& x) {
    return coding.encode(x.select(0, 0).permute({1, 2, 3, 0}).contiguous());
  };
  const Coding clip = [&](const Tensor& x) {
    return sizes.used ? in_space(x, tiles_of(sizes.side, kOverlap, kPixels, 1), whole) : whole(x);
  };
  auto video = frames.permute({3, 0, 1, 2}).unsqueeze(0);
  auto latent = sizes.used
                    ? in_time(video, tiles_of(sizes.time, sizes.time_overlap, kFrames, 1), clip)
                    : clip(video);
  return latent * call.number("latent_strength");
}

/// Noise of this strength over all but black pixels, of a fixed seed.
Tensor noisy(const Tensor& image, double strength) {
  if (strength <= 0) return image;
  auto generator = at::detail::createCPUGenerator(0);
  auto noise = at::randn(image.sizes(), generator, at::TensorOptions(at::kFloat));
  // The strength is that of numbers from -1 to 1.
  return image + at::where(image == 0, at::zeros_like(noise), noise) * (strength / 2);
}

void run_encode(Call& call) {
  const auto& image = image_input(call, "image");
  auto latent = encoded(call, noisy(image, call.number("noise_aug_strength")));
  call.out(0, Value::of("LATENT", Latent{latent, {}, {}}));
}

void run_encode_keyframes(Call& call) {
  const auto start = image_input(call, "start_image"), end = image_input(call, "end_image");
  if (start.sizes().slice(1) != end.sizes().slice(1))
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("wants both pictures in one size, and got {} and {}",
                            c10::str(start.sizes()), c10::str(end.sizes())));
  const auto strength = call.number("noise_aug_strength");
  const auto between =
      std::max<std::int64_t>(0, call.integer("num_frames") - start.size(0) - end.size(0));
  auto sizes = start.sizes().vec();
  sizes[0] = between;
  auto video = at::cat({noisy(start, strength), at::zeros(sizes), noisy(end, strength)});
  call.out(0, Value::of("LATENT", Latent{encoded(call, video), {}, {}}));
}

/// Sizes that the model was trained in, by the length of a side, and the nearest to a picture's
/// form.
void run_bucket(Call& call) {
  constexpr std::int64_t cell = 32;
  constexpr double most = 4.0;
  const auto& image = image_input(call, "image");
  const auto base = call.text("base_size");
  const std::int64_t side = base == "720" ? 960 : base == "540" ? 720 : 480;
  const double form = static_cast<double>(image.size(1)) / static_cast<double>(image.size(2));
  const auto cells = std::llround(std::pow(static_cast<double>(side) / cell, 2));
  auto rounded = [](double ratio) { return std::nearbyint(ratio * 1e5) / 1e5; };
  std::int64_t best_rows = 1, best_columns = 1;
  double nearest = std::numeric_limits<double>::infinity();
  for (std::int64_t rows = cells, columns = 1; rows > 0;) {
    const double ratio = static_cast<double>(rows) / static_cast<double>(columns);
    const double away = std::abs(rounded(ratio) - form);
    if (std::max(ratio, 1 / ratio) <= most && away < nearest) {
      nearest = away;
      best_rows = rows;
      best_columns = columns;
    }
    if ((columns + 1) * rows <= cells)
      ++columns;
    else
      --rows;
  }
  call.out(0, Value::constant(best_columns * cell));
  call.out(1, Value::constant(best_rows * cell));
}

std::vector<graph::Input> with_tiles(std::vector<graph::Input> inputs) {
  for (auto& input : std::vector<graph::Input>{
           boolean("enable_vae_tiling",
                   {.def = true, .tooltip = "Tiles need less memory and may leave seams."}),
           integer("temporal_tiling_sample_size", {.def = 64, .min = 4, .max = 256}),
           integer("spatial_tile_sample_min_size",
                   {.def = 256, .min = 32, .max = 2048, .step = 32}),
           boolean("auto_tile_size", {.def = true, .tooltip = "64 frames and 256 pixels."})})
    inputs.push_back(input);
  return inputs;
}

std::vector<graph::Input> encode_inputs(std::vector<graph::Input> first) {
  auto inputs = with_tiles(std::move(first));
  auto factor = [](const char* name, double usual) {
    return optional(number(name, {.def = usual, .min = 0.0, .max = 10.0, .step = 0.001}));
  };
  inputs.push_back(factor("noise_aug_strength", 0.0));
  inputs.push_back(factor("latent_strength", 1.0));
  inputs.push_back(optional(choice(
      "latent_dist", {"sample", "mode"},
      {.def = "sample", .tooltip = "Both give the mean here, so that a run can be repeated."})));
  return inputs;
}

}  // namespace

void add_vae_nodes(graph::Catalog& catalog, App&) {
  auto decode_inputs = with_tiles({link("vae", "VAE"), link("samples", "LATENT")});
  decode_inputs.push_back(
      optional(integer("skip_latents", {.def = 0, .min = 0, .max = 1000, .step = 1})));
  decode_inputs.push_back(optional(boolean("balance_brightness", {.def = false})));
  catalog.add(setting("HyVideoDecode", "HunyuanVideo Decode", std::move(decode_inputs),
                      {"IMAGE", "images"}, run_decode));
  catalog.add(setting("HyVideoEncode", "HunyuanVideo Encode",
                      encode_inputs({link("vae", "VAE"), link("image", "IMAGE")}),
                      {"LATENT", "samples"}, run_encode));
  const graph::Json none = {{"default", nullptr}};
  catalog.add(
      setting("HyVideoEncodeKeyframes", "HyVideo Encode Keyframes",
              encode_inputs({link("vae", "VAE"), link("start_image", "IMAGE"),
                             link("end_image", "IMAGE", {.extra = none}),
                             integer("num_frames", {.def = 49, .min = 1, .max = 1024, .step = 4})}),
              {"LATENT", "samples"}, run_encode_keyframes));
  auto bucket =
      setting("HyVideoGetClosestBucketSize", "HunyuanVideo Get Closest Bucket Size",
              {link("image", "IMAGE"), choice("base_size", {"360", "540", "720"}, {.def = "540"})},
              {"INT", "width"}, run_bucket);
  bucket.outputs.emplace_back("INT", "height");
  catalog.add(std::move(bucket));
}

}  // namespace distorch::nodes::hyvideo
