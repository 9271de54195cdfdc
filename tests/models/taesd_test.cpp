#include "distorch/base/error.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/taesd/autoencoder.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::taesd;

namespace {

/// The tensors below a prefix, without it: a file of one half.
std::map<std::string, at::Tensor> half(const std::string& dump, const std::string& prefix) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : tiny_tensors({dump}))
    if (name.starts_with(prefix)) tensors[name.substr(prefix.size())] = tensor;
  return tensors;
}

void compare(const std::string& dump_name, const std::string& name) {
  TemporaryCheckpoint encoder(half(dump_name, "taesd_encoder.")),
      decoder(half(dump_name, "taesd_decoder."));
  auto part = joined(*encoder, *decoder);
  Autoencoder vae(config_of(part, name));
  check_complete(vae.manifest(), part, "autoencoder");
  TwiceSource source(vae.manifest(), part, at::kFloat);
  Dump dump(dump_name);
  CHECK(difference(vae.decode_pixels(dump["latent"]), dump["decoded"]) < 1e-4);
  CHECK(difference(vae.encode_mean(dump["image"]), dump["encoded"]) < 1e-4);
  CHECK(source.runs.size() == 2);
  CHECK_THROWS_WITH_AS(vae.decode_pixels(at::zeros({1, 8, 2, 2})), doctest::Contains("got 8"),
                       Error);
}

}  // namespace

TEST_CASE("TAESD: encodes and decodes as ComfyUI and diffusers") {
  compare("taesd", "taesd");
  compare("taesd16", "taef1");
}

TEST_CASE("TAESD: one file of both halves, one that only decodes, and names by latent format") {
  auto tensors = tiny_tensors({"taesd"});
  tensors["vae_scale"] = at::tensor({0.5}, at::kFloat);
  tensors["vae_shift"] = at::tensor({0.25}, at::kFloat);
  TemporaryCheckpoint both(tensors);
  auto config = config_of(part_of(*both));
  CHECK(config.scale == 0.5);
  CHECK(config.shift == 0.25);
  CHECK(config.width == 64);
  CHECK(part_of(weights::Checkpoint()).empty());
  TemporaryCheckpoint decoder(half("taesd", "taesd_decoder."));
  auto part = joined({}, *decoder);
  Autoencoder decodes(config_of(part, "taesdxl"));
  check_complete(decodes.manifest(), part, "autoencoder");
  CHECK_THROWS_WITH_AS(decodes.encode_mean(at::zeros({1, 3, 8, 8})),
                       doctest::Contains("only decodes"), Error);
  CHECK(name_for(models::sd_latent()) == "taesd");
  CHECK(name_for(models::sdxl_latent()) == "taesdxl");
  CHECK(name_for({.scale_factor = 1.5305, .shift = 0.0609, .channels = 16}) == "taesd3");
  CHECK(name_for({.scale_factor = 0.3611, .shift = 0.1159, .channels = 16}) == "taef1");
  CHECK(name_for(models::wan21_latent()) == "");
}
