#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/models/vae/clip.h"
#include "distorch/models/vae/tiled_video.h"
#include "tests/models/loaded_vae.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using namespace distorch::models::causal_vae;
using at::Tensor;

namespace {

struct Form {
  std::string dump;
  std::int64_t channels, downscale;
  std::vector<std::int64_t> cells;
};
const std::vector<Form> kForms = {{"wan_vae", 16, 8, {2, 1}}, {"wan_vae22", 48, 16, {1, 2}}};

using Loaded = LoadedVae;

Tensor clip_of(const Form& form, std::int64_t frames) {
  return tiny_weight(fmt::format("{} clip {}", form.dump, frames), {1, 3, frames, 32, 16});
}
Tensor latent_of(const Form& form, std::int64_t frames) {
  return tiny_weight(fmt::format("{} latent {}", form.dump, frames),
                     {1, form.channels, 1 + frames / 4, form.cells[0], form.cells[1]});
}

std::map<std::string, Tensor> under_diffusers_names(const std::string& dump) {
  auto tensors = tiny_tensors({dump});
  auto names = nlohmann::json::parse(std::ifstream(parity_dir() / (dump + ".json")))
                   .at("diffusers")
                   .get<std::map<std::string, std::string>>();
  std::map<std::string, Tensor> theirs;
  for (const auto& [name, original] : names) theirs[name] = tensors.at(original);
  REQUIRE(theirs.size() == tensors.size());
  return theirs;
}

/// Wan 2.2's published autoencoder.
Config second() {
  using Kind = Layer::Kind;
  Config c{.first = 160, .middle = 1024, .patch = 2, .latent_channels = 48};
  std::int64_t in = 160;
  for (std::int64_t level = 0; level < 4; ++level) {
    std::int64_t out = std::array<std::int64_t, 4>{160, 320, 640, 640}[level];
    bool resizes = level < 3, time = resizes && level > 0;
    for (int i = 0; i < 2; ++i) c.down.push_back({Kind::Residual, i == 0 ? in : out, out});
    if (resizes) c.down.push_back({Kind::Resample, out, out, time});
    c.down_groups.push_back({resizes ? 3 : 2, in, out, time ? 2 : 1, resizes ? 2 : 1, true});
    in = out;
  }
  in = 1024;
  for (std::int64_t level = 0; level < 4; ++level) {
    std::int64_t out = std::array<std::int64_t, 4>{1024, 1024, 512, 256}[level];
    bool resizes = level < 3, time = level < 2;
    for (int i = 0; i < 3; ++i) c.up.push_back({Kind::Residual, i == 0 ? in : out, out});
    if (resizes) c.up.push_back({Kind::Resample, out, out, time});
    c.up_groups.push_back({resizes ? 4 : 3, in, out, time ? 2 : 1, resizes ? 2 : 1, resizes});
    in = out;
  }
  return c;
}

}  // namespace

TEST_CASE("Wan autoencoders: clips of 1, 5 and 17 frames as ComfyUI and diffusers") {
  for (const auto& form : kForms) {
    CAPTURE(form.dump);
    Loaded l(tiny_tensors({form.dump}));
    Dump dump(form.dump);
    auto shape = l.vae->shape();
    CHECK(shape.latent_channels == form.channels);
    CHECK(shape.image_channels == 3);
    CHECK(shape.downscale == form.downscale);
    CHECK(shape.time_downscale == 4);
    for (std::int64_t frames : {1, 5, 17}) {
      CAPTURE(frames);
      auto number = std::to_string(frames);
      CHECK(difference(l.vae->encode_mean(clip_of(form, frames)), dump["encode/" + number]) < 1e-4);
      CHECK(difference(l.vae->decode_pixels(latent_of(form, frames)), dump["decode/" + number]) <
            1e-4);
    }
  }
}

TEST_CASE("Wan autoencoders: groups of frames give what the whole gives, and clips do not mix") {
  for (const auto& form : kForms) {
    CAPTURE(form.dump);
    Loaded l(tiny_tensors({form.dump}));
    auto latent = latent_of(form, 17), other = at::randn_like(latent);
    auto whole = l.vae->decode_pixels(latent);
    const auto& video = dynamic_cast<const VideoVae&>(*l.vae);
    auto first = video.decode_clip(), second = video.decode_clip();
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < latent.size(2); ++i) {
      parts.push_back(first->next(latent.narrow(2, i, 1), i + 1 < latent.size(2)));
      second->next(other.narrow(2, i, 1), true);
    }
    CHECK(at::equal(at::cat(parts, 2), whole));
    CHECK(at::equal(vae::decode_clips(*l.vae, at::cat({latent, other}), at::kCPU)[0], whole[0]));
    auto clip = clip_of(form, 17);
    CHECK(at::equal(vae::encode_clips(*l.vae, clip, at::kCPU), l.vae->encode_mean(clip)));
    // Frames behind the last whole group are left out.
    CHECK(at::equal(vae::encode_clips(*l.vae, clip.narrow(2, 0, 16), at::kCPU),
                    l.vae->encode_mean(clip.narrow(2, 0, 13))));
  }
}

TEST_CASE("Wan autoencoders: diffusers' names") {
  for (const auto& form : kForms) {
    CAPTURE(form.dump);
    Loaded l(under_diffusers_names(form.dump));
    Dump dump(form.dump);
    CHECK(difference(l.vae->decode_pixels(latent_of(form, 5)), dump["decode/5"]) < 1e-4);
    CHECK(difference(l.vae->encode_mean(clip_of(form, 5)), dump["encode/5"]) < 1e-4);
  }
}

TEST_CASE("Wan autoencoders: size of the second one, and one that cannot be") {
  auto config = second();
  CausalAutoencoder vae(config);
  CHECK(parameters(vae.manifest()) == 704'688'668);
  auto read = config_of(part_of(shapes_only(vae.manifest(), "vae.")));
  CHECK((read.down_groups == config.down_groups));
  CHECK((read.up_groups == config.up_groups));
  CHECK(read.downscale() == 16);
  CHECK(read.time_downscale() == 4);
  auto tensors = tiny_tensors({"wan_vae22"});
  tensors["encoder.downsamples.1.downsamples.2.resample.1.weight"] = at::zeros({7, 16, 3, 3});
  TemporaryCheckpoint file(tensors);
  CHECK_THROWS_WITH_AS(find_vae(*file), doctest::Contains("'encoder.downsamples.1' leads from 8"),
                       Error);
}

TEST_CASE("Wan autoencoders: a latent or frames of another size are refused") {
  Loaded l(tiny_tensors({"wan_vae22"}));
  CHECK_THROWS_WITH_AS(l.vae->decode_pixels(at::zeros({1, 16, 1, 2, 2})),
                       doctest::Contains("48 channels"), Error);
  CHECK_THROWS_WITH_AS(l.vae->encode_mean(at::zeros({1, 3, 1, 24, 16})),
                       doctest::Contains("multiples of 16"), Error);
}
