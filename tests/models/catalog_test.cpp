#include "distorch/models/catalog.h"

#include "distorch/base/error.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;

namespace {

std::unique_ptr<TextEncoder> first_encoder(const TextRecipe& recipe) {
  return recipe.encoders.at(0).make(nullptr);
}

}  // namespace

TEST_CASE("catalog: a whole checkpoint falls into its parts") {
  TemporaryCheckpoint one(tiny_tensors({"unet_sd1", "vae", "clip_l"})),
      two(tiny_tensors({"unet_sd2", "vae", "clip_h"}));
  auto first = detect_family(*one);
  CHECK(first->name() == "SD1.x");
  CHECK(first->sampling()->prediction() == sampling::Prediction::Eps);
  CHECK(first->latent().rgb_factors.size() == 4);
  auto text = first->text(*one);
  REQUIRE(text.encoders.size() == 1);
  CHECK(text.encoders[0].name == "clip_l");
  auto vae = first->vae(*one);
  CHECK(first->diffusion().tensors().size() + vae.part.tensors().size() +
            text.encoders[0].part.tensors().size() ==
        one->tensors().size());
  CHECK(first->make_network()->manifest().weights().size() == first->diffusion().tensors().size());
  CHECK(vae.make()->manifest().weights().size() == vae.part.tensors().size());
  CHECK(vae.make()->shape().downscale == 8);
  CHECK(first_encoder(text)->manifest().weights().size() == text.encoders[0].part.tensors().size());
  auto second = detect_family(*two);
  CHECK(second->name() == "SD2.x");
  text = second->text(*two);
  CHECK(text.encoders.at(0).name == "clip_h");
  CHECK(text.encoders[0].part.has("text_model.encoder.layers.2.self_attn.v_proj.bias"));
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
    return detect_family(*file)->sampling()->prediction();
  };
  CHECK(prediction(0.12) == sampling::Prediction::V);
  CHECK(prediction(0.06) == sampling::Prediction::Eps);
}

TEST_CASE("catalog: a diffusion model alone, with and without its prefix") {
  auto tensors = tiny_tensors({"unet_sd1"});
  TemporaryCheckpoint with(tensors);
  std::map<std::string, at::Tensor> bare;
  for (const auto& [name, tensor] : tensors)
    bare[name.substr(std::string("model.diffusion_model.").size())] = tensor;
  TemporaryCheckpoint without(bare);
  CHECK(detect_family(*with)->diffusion().tensors().size() == tensors.size());
  auto family = detect_family(*without);
  CHECK(family->diffusion().tensors().size() == tensors.size());
  CHECK(family->text(*without).empty());
  CHECK(family->vae(*without).empty());
}

TEST_CASE("catalog: other files are refused with their name") {
  TemporaryCheckpoint file({{"some.weight", at::ones({2, 2})}});
  CHECK(find_family(*file) == nullptr);
  CHECK(find_vae(*file).empty());
  CHECK(find_text(*file).empty());
  CHECK_THROWS_WITH_AS(detect_family(*file), doctest::Contains("SD1.x, SD2.x"), Error);
  CHECK_THROWS_WITH_AS(detect_family(*file), doctest::Contains("distorch_models_"), Error);
  CHECK_THROWS_WITH_AS(text_recipe({*file}, "stable_diffusion"),
                       doctest::Contains("holds no text encoder"), Error);
}
