#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/models/vae/tiled_video.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::causal_vae;
using at::Tensor;

namespace {

struct Loaded {
  explicit Loaded(const std::map<std::string, Tensor>& tensors)
      : file(tensors),
        part(part_of(*file)),
        vae(config_of(part)),
        source(vae.manifest(), part, at::kFloat) {
    check_complete(vae.manifest(), part, "autoencoder");
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  CausalAutoencoder vae;
  TwiceSource source;
};

Tensor picture(const Tensor& decoded) { return ((decoded + 1.0) / 2.0).clamp(0, 1).movedim(1, -1); }

}  // namespace

TEST_CASE("causal autoencoder: pictures and video, as ComfyUI and diffusers") {
  Loaded l(tiny_tensors({"causal_vae"}));
  Dump dump("causal_vae");
  auto shape = l.vae.shape();
  CHECK(shape.latent_channels == 16);
  CHECK(shape.downscale == 8);
  CHECK(shape.time_downscale == 4);
  CHECK(shape.dimensions == 3);
  auto encoded = l.vae.encode_mean(tiny_weight("picture", {2, 3, 1, 16, 24}));
  CHECK(difference(encoded, dump["encode/picture"]) < 1e-4);
  CHECK(difference(l.vae.decode_pixels(tiny_weight("latent", {1, 16, 1, 3, 2})),
                   dump["decode/latent"]) < 1e-4);
  CHECK(l.source.runs.size() == l.vae.manifest().blocks().size());
  // 11 frames: the last two make no whole latent frame.
  CHECK(difference(l.vae.encode_mean(tiny_weight("video", {1, 3, 11, 16, 16})),
                   dump["encode/video"]) < 1e-4);
  CHECK(difference(l.vae.decode_pixels(tiny_weight("latents", {1, 16, 3, 2, 2})),
                   dump["decode/latents"]) < 1e-4);
  CHECK_THROWS_WITH_AS(l.vae.encode_mean(at::zeros({1, 3, 1, 20, 16})),
                       doctest::Contains("multiples of 8"), Error);
  CHECK_THROWS_WITH_AS(l.vae.decode_pixels(at::zeros({1, 4, 1, 2, 2})),
                       doctest::Contains("16 channels"), Error);
}

TEST_CASE("causal autoencoder: tiles in space and time as ComfyUI's") {
  Loaded l(tiny_tensors({"causal_vae"}));
  Dump dump("causal_vae");
  std::int64_t last = 0, total = 0;
  auto large = tiny_weight("large", {1, 16, 4, 5, 4});
  auto decoded = models::vae::decode_tiled_video(
      l.vae, large, {.side = 4, .overlap = 2, .frames = 3, .frame_overlap = 2},
      [&](auto done, auto all) { last = done, total = all; });
  CHECK(difference(picture(decoded), dump["decode/tiled"]) < 1e-4);
  CHECK(last == total);
  CHECK(total == 4);
  auto frames = (tiny_weight("frames", {21, 40, 32, 3}) * 2.0 - 1.0).movedim(-1, 0).unsqueeze(0);
  auto encoded = models::vae::encode_tiled_video(
      l.vae, frames, {.side = 24, .overlap = 8, .frames = 17, .frame_overlap = 5});
  CHECK(difference(encoded, dump["encode/tiled"]) < 1e-4);
  CHECK_THROWS_WITH_AS(models::vae::decode_tiled_video(l.vae, large, {.side = 4, .overlap = 4}),
                       doctest::Contains("no room"), Error);
}

TEST_CASE("causal autoencoder: diffusers names, inside a checkpoint, and what is none") {
  auto tensors = tiny_tensors({"causal_vae"});
  auto names = nlohmann::json::parse(std::ifstream(parity_dir() / "causal_vae.json"))
                   .at("diffusers")
                   .get<std::map<std::string, std::string>>();
  std::map<std::string, Tensor> theirs;
  for (const auto& [name, original] : names) theirs["vae." + name] = tensors.at(original);
  CHECK(theirs.size() == tensors.size());
  Loaded l(theirs);
  CHECK(difference(l.vae.decode_pixels(tiny_weight("latent", {1, 16, 1, 3, 2})),
                   Dump("causal_vae")["decode/latent"]) < 1e-4);
  CHECK(models::find_vae(*l.file).make()->shape().dimensions == 3);
}

TEST_CASE("causal autoencoder: size of the real one") {
  using Kind = Layer::Kind;
  Config c;
  std::int64_t in = 96;
  for (std::int64_t level = 0; level < 4; ++level) {
    std::int64_t out = std::array<std::int64_t, 4>{96, 192, 384, 384}[level];
    for (int i = 0; i < 2; ++i) c.down.push_back({Kind::Residual, i == 0 ? in : out, out});
    if (level < 3) c.down.push_back({Kind::Resample, out, out, level > 0});
    in = out;
  }
  in = 384;
  for (std::int64_t level = 0; level < 4; ++level) {
    std::int64_t out = std::array<std::int64_t, 4>{384, 384, 192, 96}[level];
    for (int i = 0; i < 3; ++i) c.up.push_back({Kind::Residual, i == 0 ? in : out, out});
    if (level < 3) c.up.push_back({Kind::Resample, out, out / 2, level < 2});
    in = out / 2;
  }
  CausalAutoencoder vae(c);
  CHECK(parameters(vae.manifest()) == 126'892'531);
  auto read = config_of(part_of(shapes_only(vae.manifest(), "first_stage_model.")));
  CHECK((read.down == c.down));
  CHECK((read.up == c.up));
}
