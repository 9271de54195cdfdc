#include "distorch/models/taehv/autoencoder.h"

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/vae/clip.h"
#include "tests/models/loaded_vae.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

using Loaded = LoadedVae;

Tensor clip_of(std::int64_t frames, std::int64_t side) {
  return at::rand({1, 3, frames, side, 2 * side},
                  at::detail::createCPUGenerator(static_cast<std::uint64_t>(frames)));
}

}  // namespace

TEST_CASE("small video autoencoders: clips as ComfyUI codes them") {
  for (bool second : {false, true}) {
    std::string name = second ? "taehv22" : "taehv";
    std::int64_t channels = second ? 48 : 16, side = second ? 32 : 16;
    CAPTURE(name);
    Loaded l(tiny_tensors({name}));
    auto shape = l.vae->shape();
    CHECK(shape.latent_channels == channels);
    CHECK(shape.downscale == (second ? 16 : 8));
    CHECK(shape.time_downscale == 4);
    Dump dump(name);
    for (std::int64_t frames : {1, 5, 9}) {
      CAPTURE(frames);
      auto number = std::to_string(frames);
      auto clip = clip_of(frames, side) * 2.0 - 1.0;
      CHECK(difference(l.vae->encode_mean(clip), dump["encode/" + number]) < 1e-4);
      CHECK(difference(vae::encode_clips(*l.vae, clip, at::kCPU), dump["encode/" + number]) < 1e-4);
      auto latent = tiny_weight(name + " " + number, {1, channels, 1 + frames / 4, 1, 2}) * 8;
      auto pixels = (l.vae->decode_pixels(latent) + 1.0) / 2.0;
      CHECK(difference(pixels, dump["decode/" + number]) < 1e-4);
    }
  }
}

TEST_CASE("small video autoencoders: numbers of float16 have HunyuanVideo's scale") {
  auto shaped = [](formats::DType dtype, std::int64_t channels) {
    weights::Checkpoint file;
    for (const auto& [name, tensor] : tiny_tensors({"taehv"})) {
      auto shape = tensor.sizes().vec();
      if (name == "decoder.1.weight") shape[1] = channels;
      file.add(name, {.dtype = dtype, .shape = shape});
    }
    return file;
  };
  CHECK(taehv::config_of(shaped(formats::DType::F32, 16)).scale == 1.0);
  CHECK(taehv::config_of(shaped(formats::DType::F16, 16)).scale == 0.476986);
  CHECK_FALSE(taehv::part_of(shaped(formats::DType::F16, 48)).empty());
  CHECK(taehv::part_of(shaped(formats::DType::F16, 32)).empty());
}
