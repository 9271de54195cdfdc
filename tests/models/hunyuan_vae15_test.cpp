#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/hunyuan_vae15/autoencoder.h"
#include "distorch/models/vae/clip.h"
#include "distorch/models/vae/tiled_video.h"
#include "tests/models/loaded_vae.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

constexpr const char* kDump = "hunyuan_vae15";

Tensor clip_of(std::int64_t frames) {
  return tiny_weight("clip " + std::to_string(frames), {1, 3, frames, 32, 48});
}
Tensor latent_of(std::int64_t frames) {
  return tiny_weight("latent " + std::to_string(frames), {1, 32, frames, 2, 1});
}
Tensor picture(const Tensor& decoded) { return ((decoded + 1.0) / 2.0).clamp(0, 1).movedim(1, -1); }

}  // namespace

TEST_CASE("hunyuan 1.5 autoencoder: clips of several lengths as ComfyUI") {
  LoadedVae l(tiny_tensors({kDump}));
  Dump dump(kDump);
  auto shape = l.vae->shape();
  CHECK(shape.latent_channels == 32);
  CHECK(shape.downscale == 16);
  CHECK(shape.time_downscale == 4);
  CHECK(shape.dimensions == 3);
  for (std::int64_t frames : {1, 6, 13}) {
    CAPTURE(frames);
    CHECK(difference(l.vae->encode_mean(clip_of(frames)),
                     dump["encode/" + std::to_string(frames)]) < 1e-4);
  }
  for (std::int64_t frames : {1, 2, 4}) {
    CAPTURE(frames);
    auto decoded = l.vae->decode_pixels(latent_of(frames));
    CHECK(decoded.sizes() == at::IntArrayRef({1, 3, 4 * frames - 3, 32, 16}));
    CHECK(difference(decoded.slice(3, 0, {}, 3).slice(4, 0, {}, 2),
                     dump["decode/" + std::to_string(frames)]) < 1e-4);
  }
  CHECK(l.source->runs.size() == l.vae->manifest().blocks().size());
}

TEST_CASE("hunyuan 1.5 autoencoder: tiles in space and time as ComfyUI's") {
  LoadedVae l(tiny_tensors({kDump}));
  Dump dump(kDump);
  auto large = tiny_weight("large", {1, 32, 4, 3, 2});
  auto decoded = picture(vae::decode_tiled_video(
      *l.vae, large, {.side = 2, .overlap = 1, .frames = 3, .frame_overlap = 2}));
  CHECK(difference(decoded.slice(2, 0, {}, 5).slice(3, 0, {}, 5), dump["decode/tiled"]) < 1e-4);
  auto frames = (tiny_weight("frames", {13, 48, 32, 3}) * 2.0 - 1.0).movedim(-1, 0).unsqueeze(0);
  auto encoded = vae::encode_tiled_video(
      *l.vae, frames, {.side = 32, .overlap = 16, .frames = 9, .frame_overlap = 1});
  CHECK(difference(encoded, dump["encode/tiled"]) < 1e-4);
}

TEST_CASE("hunyuan 1.5 autoencoder: clips of a batch pass one by one, also from a checkpoint") {
  LoadedVae l(tiny_tensors({kDump}));
  auto latent = latent_of(2), other = at::randn_like(latent);
  auto whole = l.vae->decode_pixels(latent);
  CHECK(at::equal(l.vae->decode_pixels(at::cat({other, latent})).narrow(0, 1, 1), whole));
  CHECK(at::equal(vae::decode_clips(*l.vae, latent, at::kCPU), whole));
  std::map<std::string, Tensor> inside;
  for (const auto& [name, tensor] : tiny_tensors({kDump})) inside["vae." + name] = tensor;
  LoadedVae part(inside);
  CHECK(at::equal(part.vae->decode_pixels(latent), whole));
}

TEST_CASE("hunyuan 1.5 autoencoder: its size, and what does not fit") {
  hunyuan_vae15::Autoencoder vae({});
  CHECK(parameters(vae.manifest()) == 1'260'634'115);  // ComfyUI's, but for what it never uses
  auto shapes = shapes_only(vae.manifest());
  auto config = hunyuan_vae15::config_of(hunyuan_vae15::part_of(shapes));
  CHECK((config.channels == std::vector<std::int64_t>{128, 256, 512, 1024, 1024}));
  CHECK(config.res_blocks == 2);
  CHECK(config.latent_channels == 32);
  CHECK_THROWS_WITH_AS(vae.decode_pixels(at::zeros({1, 16, 1, 2, 2})),
                       doctest::Contains("32 channels"), Error);
  CHECK_THROWS_WITH_AS(vae.encode_mean(at::zeros({1, 3, 1, 24, 16})),
                       doctest::Contains("multiples of 16"), Error);
  // A level that the one below it does not divide.
  shapes.add("encoder.down.3.block.0.conv1.conv.weight",
             {.dtype = formats::DType::F16, .shape = {1000, 1000, 3, 3, 3}});
  CHECK_THROWS_WITH_AS(hunyuan_vae15::config_of(hunyuan_vae15::part_of(shapes)),
                       doctest::Contains("512 channels at one level and 1000 at the next"), Error);
}
