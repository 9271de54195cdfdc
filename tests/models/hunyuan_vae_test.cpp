#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/hunyuan_vae/autoencoder.h"
#include "distorch/models/vae/clip.h"
#include "distorch/models/vae/tiled_video.h"
#include "tests/models/loaded_vae.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

Tensor clip_of(std::int64_t frames) {
  return tiny_weight("clip " + std::to_string(frames), {1, 3, frames, 16, 24});
}
Tensor latent_of(std::int64_t frames) {
  return tiny_weight("latent " + std::to_string(frames), {1, 16, frames, 2, 3});
}

Tensor picture(const Tensor& decoded) { return ((decoded + 1.0) / 2.0).clamp(0, 1).movedim(1, -1); }

std::map<std::string, Tensor> under_diffusers_names() {
  auto tensors = tiny_tensors({"hunyuan_vae"});
  auto names = nlohmann::json::parse(std::ifstream(parity_dir() / "hunyuan_vae.json"))
                   .at("diffusers")
                   .get<std::map<std::string, std::string>>();
  std::map<std::string, Tensor> theirs;
  for (const auto& [name, original] : names) {
    auto tensor = tensors.at(original);
    bool matrix = tensor.dim() > 1 && name.find(".attentions.") != std::string::npos;
    theirs[name] = matrix ? tensor.flatten(1) : tensor;
  }
  REQUIRE(theirs.size() == tensors.size());
  return theirs;
}

}  // namespace

TEST_CASE("hunyuan autoencoder: clips of several lengths as ComfyUI") {
  LoadedVae l(tiny_tensors({"hunyuan_vae"}));
  Dump dump("hunyuan_vae");
  auto shape = l.vae->shape();
  CHECK(shape.latent_channels == 16);
  CHECK(shape.downscale == 8);
  CHECK(shape.time_downscale == 4);
  CHECK(shape.dimensions == 3);
  for (std::int64_t frames : {1, 6, 9}) {
    CAPTURE(frames);
    CHECK(difference(l.vae->encode_mean(clip_of(frames)),
                     dump["encode/" + std::to_string(frames)]) < 1e-4);
  }
  for (std::int64_t frames : {1, 2, 3}) {
    CAPTURE(frames);
    CHECK(difference(l.vae->decode_pixels(latent_of(frames)),
                     dump["decode/" + std::to_string(frames)]) < 1e-4);
  }
  CHECK(l.source->runs.size() == l.vae->manifest().blocks().size());
}

TEST_CASE("hunyuan autoencoder: tiles in space and time as ComfyUI's") {
  LoadedVae l(tiny_tensors({"hunyuan_vae"}));
  Dump dump("hunyuan_vae");
  auto large = tiny_weight("large", {1, 16, 4, 5, 4});
  auto decoded = picture(vae::decode_tiled_video(
      *l.vae, large, {.side = 4, .overlap = 2, .frames = 3, .frame_overlap = 2}));
  CHECK(difference(decoded.slice(2, 0, {}, 4).slice(3, 0, {}, 4), dump["decode/tiled"]) < 1e-4);
  auto frames = (tiny_weight("frames", {13, 40, 32, 3}) * 2.0 - 1.0).movedim(-1, 0).unsqueeze(0);
  auto encoded = vae::encode_tiled_video(
      *l.vae, frames, {.side = 24, .overlap = 8, .frames = 9, .frame_overlap = 1});
  CHECK(difference(encoded, dump["encode/tiled"]) < 1e-4);
}

TEST_CASE("hunyuan autoencoder: clips of a batch pass one by one, each whole") {
  LoadedVae l(tiny_tensors({"hunyuan_vae"}));
  auto latent = latent_of(2), other = at::randn_like(latent);
  auto whole = l.vae->decode_pixels(latent);
  CHECK(at::equal(l.vae->decode_pixels(at::cat({latent, other})).narrow(0, 0, 1), whole));
  CHECK(at::equal(vae::decode_clips(*l.vae, at::cat({other, latent}), at::kCPU)[1], whole[0]));
  CHECK(vae::decode_groups(l.vae->shape(), 9) == 1);
  auto clip = clip_of(6);
  CHECK(at::equal(vae::encode_clips(*l.vae, clip, at::kCPU), l.vae->encode_mean(clip)));
}

TEST_CASE("hunyuan autoencoder: diffusers' names, alone and inside a checkpoint") {
  LoadedVae alone(under_diffusers_names());
  std::map<std::string, Tensor> inside;
  for (const auto& [name, tensor] : tiny_tensors({"hunyuan_vae"})) inside["vae." + name] = tensor;
  LoadedVae part(inside);
  Dump dump("hunyuan_vae");
  CHECK(difference(alone.vae->decode_pixels(latent_of(2)), dump["decode/2"]) < 1e-4);
  CHECK(difference(part.vae->decode_pixels(latent_of(2)), dump["decode/2"]) < 1e-4);
}

TEST_CASE("hunyuan autoencoder: its size, and what does not fit") {
  hunyuan_vae::Autoencoder vae({});
  CHECK(parameters(vae.manifest()) == 246'478'803);
  auto config = hunyuan_vae::config_of(hunyuan_vae::part_of(shapes_only(vae.manifest())));
  CHECK((config.channels == std::vector<std::int64_t>{128, 256, 512, 512}));
  CHECK_THROWS_WITH_AS(vae.decode_pixels(at::zeros({1, 4, 1, 2, 2})),
                       doctest::Contains("16 channels"), Error);
  CHECK_THROWS_WITH_AS(vae.encode_mean(at::zeros({1, 3, 1, 20, 16})),
                       doctest::Contains("multiples of 8"), Error);
}
