#include "distorch/models/upscale/upscale.h"

#include "distorch/base/error.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::upscale;

namespace {

/// Runs a tiny model of tests/parity as spandrel ran it.
void compare(const std::string& name, const std::map<std::string, at::Tensor>& fixed = {}) {
  CAPTURE(name);
  auto tensors = tiny_tensors({name});
  tensors.insert(fixed.begin(), fixed.end());
  // A variance is positive.
  for (auto& [tensor, value] : tensors)
    if (tensor.ends_with("running_var")) value = value.abs() + 0.5;
  TemporaryCheckpoint file(tensors);
  auto found = find_upscale(*file);
  auto network = found.make();
  check_complete(network->manifest(), found.part, name);
  TwiceSource source(network->manifest(), found.part, at::kFloat);
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json")));
  CHECK(network->shape().scale == json.at("scale").get<std::int64_t>());
  Dump dump(name);
  CHECK(difference(network->forward(dump["main/x"]), dump["main/out"]) < 1e-4);
  int compared = 0;
  for (const std::string kind : {"main", "odd", "tiny"}) {
    if (!dump.has(kind + "/x")) continue;
    CHECK(difference(upscale(*network, dump[kind + "/x"]), dump[kind + "/upscaled"]) < 1e-4);
    ++compared;
  }
  CHECK(compared > 0);
}

}  // namespace

TEST_CASE("upscale: ESRGAN in its older names and ESRGAN+ as spandrel computes them") {
  compare("upscale_esrgan");
  compare("upscale_esrgan_plus");
}

TEST_CASE("upscale: RealESRGAN with unshuffled pixels, at odd sizes too") {
  compare("upscale_realesrgan");
}

TEST_CASE("upscale: RealESRGAN compact") { compare("upscale_compact"); }

TEST_CASE("upscale: SwinIR with every way back to pixels, at sizes that windows do not divide") {
  for (const std::string kind : {"shuffle", "nearest", "direct", "repair"}) {
    auto pixels = kind == "repair" ? 49 : 16;
    compare("upscale_swinir_" + kind,
            {{"layers.0.residual_group.blocks.0.attn.relative_position_index",
              at::zeros({pixels, pixels})}});
  }
}

TEST_CASE("upscale: HAT, with wider surroundings of windows, at sizes that windows do not divide") {
  auto index = [](std::int64_t window, std::int64_t wide) {
    return std::map<std::string, at::Tensor>{
        {"relative_position_index_SA", at::zeros({window * window, window * window})},
        {"relative_position_index_OCA", at::zeros({window * window, wide * wide})}};
  };
  compare("upscale_hat", index(4, 6));
  compare("upscale_hat_plain", index(4, 8));
}

TEST_CASE("upscale: DAT, with upright and lying windows, shifted and not, and channels") {
  for (const std::string name : {"upscale_dat", "upscale_dat_direct"})
    compare(name, {{"layers.0.blocks.0.attn.attns.0.rpe_biases",
                    at::tensor({-1.0f, -3.0f, 1.0f, 3.0f}).view({2, 2})}});
}

TEST_CASE("upscale: a state that training averaged counts, a file of another kind is named") {
  std::map<std::string, at::Tensor> both;
  for (const auto& [name, tensor] : tiny_tensors({"upscale_compact"})) {
    both["params." + name] = at::zeros_like(tensor);
    both["params_ema." + name] = tensor;
  }
  TemporaryCheckpoint file(both);
  auto found = find_upscale(*file);
  CHECK(
      weights::read_dense(*found.part.find("body.0.weight"), at::kFloat).abs().max().item<float>() >
      0);
  TemporaryCheckpoint other({{"weight", at::zeros({2, 2})}});
  CHECK_THROWS_WITH_AS(find_upscale(*other), doctest::Contains("ESRGAN"), Error);
  CHECK_THROWS_WITH_AS(upscale(*found.make(), at::zeros({1, 4, 8, 8})),
                       doctest::Contains("3 channels"), Error);
}
