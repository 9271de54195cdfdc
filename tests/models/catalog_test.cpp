#include "distorch/models/catalog.h"

#include "distorch/base/error.h"
#include "distorch/models/sd/unet_config.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;

TEST_CASE("catalog: a whole checkpoint falls into its parts") {
  TemporaryCheckpoint one(tiny_tensors({"unet_sd1", "vae", "clip_l"})),
      two(tiny_tensors({"unet_sd2", "vae", "clip_h"}));
  auto parts = split_checkpoint(*one);
  CHECK(std::string(parts.family->name) == "SD1.x");
  CHECK(parts.family->text == clip::TextKind::ClipL);
  CHECK(parts.family->prediction(parts.unet) == Prediction::Epsilon);
  CHECK(parts.family->latent.rgb_factors.size() == 4);
  CHECK(parts.unet.tensors().size() + parts.vae.tensors().size() + parts.text.tensors().size() ==
        one->tensors().size());
  CHECK(parts.family->make(parts.unet)->manifest().weights().size() == parts.unet.tensors().size());
  auto second = split_checkpoint(*two);
  CHECK(std::string(second.family->name) == "SD2.x");
  CHECK(second.family->text == clip::TextKind::ClipH);
  CHECK(second.text.has("text_model.encoder.layers.2.self_attn.v_proj.bias"));
}

TEST_CASE("catalog: the wide bias of SD 2.x velocity models") {
  auto tensors = tiny_tensors({"unet_sd2"});
  const std::string name =
      "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
  REQUIRE(tensors.count(name) == 1);
  auto prediction = [&](double spread) {
    auto& bias = tensors[name];
    bias = (bias - bias.mean()) / bias.std(false) * spread;
    TemporaryCheckpoint file(tensors);
    auto parts = split_checkpoint(*file);
    return parts.family->prediction(parts.unet);
  };
  CHECK(prediction(0.12) == Prediction::Velocity);
  CHECK(prediction(0.06) == Prediction::Epsilon);
}

TEST_CASE("catalog: a diffusion model alone, with and without its prefix") {
  auto tensors = tiny_tensors({"unet_sd1"});
  TemporaryCheckpoint with(tensors);
  std::map<std::string, at::Tensor> bare;
  for (const auto& [name, tensor] : tensors)
    bare[name.substr(std::string("model.diffusion_model.").size())] = tensor;
  TemporaryCheckpoint without(bare);
  CHECK(unet_part(*with).tensors().size() == tensors.size());
  CHECK(unet_part(*without).tensors().size() == tensors.size());
  CHECK(split_checkpoint(*without).text.empty());
  CHECK(split_checkpoint(*without).vae.empty());
}

TEST_CASE("catalog: other files are refused with their name") {
  TemporaryCheckpoint file({{"some.weight", at::ones({2, 2})}});
  CHECK_THROWS_WITH_AS(split_checkpoint(*file), doctest::Contains("SD1.x, SD2.x"), Error);
  CHECK_THROWS_WITH_AS(split_checkpoint(*file), doctest::Contains("distorch_models_"), Error);
}
