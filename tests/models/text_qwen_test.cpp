// Qwen's text encoders and their vision tower, against transformers and ComfyUI.
#include "distorch/base/error.h"
#include "distorch/models/flow_recipes.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/qwen/vision.h"
#include "tests/models/text_tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;
using weights::Checkpoint;

namespace {

/// A smooth picture, made as the parity script makes it.
Tensor picture(std::int64_t height, std::int64_t width, double seed) {
  auto y = (at::arange(height, at::kFloat) / static_cast<double>(height)).unsqueeze(1);
  auto x = (at::arange(width, at::kFloat) / static_cast<double>(width)).unsqueeze(0);
  std::vector<Tensor> waves;
  for (int c = 0; c < 3; ++c)
    waves.push_back(at::sin(x * (3 + seed + c) + y * (5 - c) + seed) * 0.5 + 0.5);
  return at::stack(waves, -1).unsqueeze(0);
}

Checkpoint encoder_of(const Checkpoint& file, const std::string& name) {
  return file.part("text_encoders." + name + ".transformer.");
}

}  // namespace

TEST_CASE("Qwen3: as transformers computes it") {
  Dump dump("text_qwen3");
  TemporaryCheckpoint file(tiny_tensors({"text_qwen3"}));
  auto part = qwen::text_part(encoder_of(*file, "qwen3_4b"), qwen::TextKind::Qwen3_4B);
  auto config = qwen::text_config(part);
  CHECK(config.heads == 2);
  CHECK(config.key_heads == 1);
  CHECK(config.head_norms);
  weights::Manifest manifest;
  qwen::TextModel model(manifest, config);
  check_complete(manifest, part, "text encoder");
  TwiceSource source(manifest, part, at::kFloat);
  auto ids = dump["ids"].to(at::kLong);
  auto places = at::arange(ids.size(1), at::kFloat).unsqueeze(0).expand({3, -1});
  auto both =
      model.forward({ids, {}, {}, places}, {{config.layers - 1, false}, {config.layers, true}});
  CHECK(difference(both.narrow(2, 0, config.width), dump["hidden"]) < 1e-4);
  CHECK(difference(both.narrow(2, config.width, config.width), dump["last"]) < 1e-4);
  // A mask that lets everything be seen changes nothing.
  auto seen = model.forward({ids, {}, at::ones({1, ids.size(1)}), places}, {{config.layers, true}});
  CHECK(difference(seen, dump["last"]) < 1e-4);
}

TEST_CASE("text recipes: prompts of Z-Image and FLUX.2 klein as ComfyUI encodes them") {
  Dump dump("text_qwen3");
  TemporaryCheckpoint file(tiny_tensors({"text_qwen3"}));
  LoadedRecipe z_image(checkpoint_recipe(*file, "lumina2"));
  LoadedRecipe klein(checkpoint_recipe(*file, "flux2"));
  LoadedRecipe alone(text_recipe({encoder_of(*file, "qwen3_4b")}, "lumina2"));
  for (const auto& c : cases_of("text_qwen3")) {
    auto key = c["key"].get<std::string>();
    CAPTURE(key);
    bool is_klein = c["type"] == "flux2";
    auto prompt = c["prompt"].get<std::string>();
    auto got = is_klein ? klein(prompt) : z_image(prompt);
    REQUIRE(got.states.size(1) == c["tokens"].get<std::int64_t>());
    CHECK(difference(got.states.slice(1, 0, got.states.size(1), 9), dump[key]) < 1e-4);
    CHECK_FALSE(got.pooled.defined());
    CHECK(got.mask.defined() == is_klein);
    if (is_klein) CHECK(got.mask.sum().item<double>() == c["counted"].get<double>());
    if (!is_klein) CHECK(at::equal(alone(prompt).states, got.states));
  }
  CHECK(klein.encoder(0).width() == 3 * klein.encoder(0).token_width());
}

TEST_CASE("text recipes: prompts of Qwen-Image and its edit models as ComfyUI encodes them") {
  Dump dump("text_qwen25");
  TemporaryCheckpoint file(tiny_tensors({"text_qwen25"}));
  LoadedRecipe loaded(checkpoint_recipe(*file, "qwen_image"));
  for (const auto& c : cases_of("text_qwen25")) {
    auto key = c["key"].get<std::string>();
    CAPTURE(key);
    Prompt prompt(c["prompt"].get<std::string>());
    double seed = 0;
    for (const auto& size : c["pictures"])
      prompt.pictures.push_back(picture(size[0], size[1], seed++));
    if (c["own_frame"].get<bool>()) prompt.frame = kQwenEditFrame;
    auto got = loaded(prompt);
    REQUIRE(got.states.size(1) == c["tokens"].get<std::int64_t>());
    CHECK(difference(got.states.slice(1, 0, got.states.size(1), 5), dump[key]) < 1e-4);
    CHECK(got.mask.defined() == c["masked"].get<bool>());
  }
}

TEST_CASE("Qwen2.5-VL: the vision tower as transformers computes it") {
  Dump dump("text_qwen25");
  TemporaryCheckpoint file(tiny_tensors({"text_qwen25"}));
  auto part = qwen::text_part(encoder_of(*file, "qwen25_7b"), qwen::TextKind::Qwen25Vl7B);
  REQUIRE(qwen::has_vision(part));
  weights::Manifest manifest;
  qwen::Vision vision(manifest, qwen::vision_config(part));
  check_complete(manifest, part, "vision tower");
  TwiceSource source(manifest, part, at::kFloat);
  auto cut = qwen::cut_picture(picture(150, 330, 0), vision.config());
  CHECK(cut.grid_rows == 10);
  CHECK(cut.grid_columns == 24);
  CHECK(cut.columns == 60);
  auto thinned =
      cut.patches.slice(0, 0, cut.patches.size(0), 11).slice(1, 0, cut.patches.size(1), 37);
  CHECK(difference(thinned, dump["patches"]) < 1e-4);
  CHECK(difference(vision.forward(cut.patches, cut.grid_rows, cut.grid_columns), dump["seen"]) <
        1e-4);
}

TEST_CASE("Qwen2.5-VL: sizes of pictures, windows at the edges") {
  qwen::VisionConfig config{.width = 64, .layers = 1};
  auto size = [&](std::int64_t height, std::int64_t width) {
    auto cut = qwen::cut_picture(at::zeros({1, height, width, 3}), config);
    return std::pair(cut.grid_rows * 14, cut.grid_columns * 14);
  };
  CHECK(size(1024, 1024) == std::pair<std::int64_t, std::int64_t>(1036, 1036));
  CHECK(size(42, 70) ==
        std::pair<std::int64_t, std::int64_t>(56, 56));  // halves go to even numbers
  CHECK(size(1, 1) == std::pair<std::int64_t, std::int64_t>(56, 56));
  CHECK(size(10, 2000) == std::pair<std::int64_t, std::int64_t>(28, 812));

  auto windows = qwen::windows_of(5, 6);
  CHECK(windows.groups.size() == 4);
  std::int64_t patches = 0;
  for (const auto& group : windows.groups) patches += group.count * group.size;
  CHECK(patches == 5 * 6 * 4);
  auto sorted = windows.order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 30; ++i) CHECK(sorted[static_cast<std::size_t>(i)] == i);
  CHECK(qwen::windows_of(8, 4).groups.size() == 1);
}

TEST_CASE("Qwen: the real encoders by shapes alone; others are refused") {
  weights::Manifest four, eight, seven;
  qwen::TextModel m4(four, {});
  qwen::TextModel m8(eight, {.width = 4096, .mlp_width = 12288});
  qwen::Vision eyes(seven, {});
  qwen::TextModel m7(seven, {.width = 3584,
                             .heads = 28,
                             .key_heads = 4,
                             .layers = 28,
                             .mlp_width = 18944,
                             .vocabulary = 152064,
                             .head_norms = false,
                             .qkv_biases = true});
  CHECK(parameters(four) == 4'022'468'096);
  CHECK(parameters(seven) == 7'747'169'280);
  CHECK(encoder_title(shapes_only(four)) == "Qwen3 4B");
  CHECK(encoder_title(shapes_only(eight)) == "Qwen3 8B");
  CHECK(encoder_title(shapes_only(seven)) == "Qwen2.5-VL 7B");
  auto config = qwen::vision_config(shapes_only(seven));
  CHECK(config.layers == 32);
  CHECK(config.mlp_width == 3420);
  // Named as transformers names them.
  Checkpoint renamed;
  auto file = shapes_only(seven);
  for (const auto& [name, stored] : file.tensors())
    renamed.add(name.starts_with("visual.") ? "model." + name : "model.language_" + name, stored);
  CHECK(encoder_title(renamed) == "Qwen2.5-VL 7B");
  CHECK_THROWS_WITH_AS(text_recipe({shapes_only(seven)}, "flux2"),
                       doctest::Contains("takes Qwen3 4B or Qwen3 8B; this file holds"), Error);
  CHECK_THROWS_WITH_AS(text_recipe({shapes_only(four)}, "sd3"), doctest::Contains("type 'sd3'"),
                       Error);
  CHECK_THROWS_WITH_AS(text_recipe({shapes_only(seven)}, "hunyuan_image"),
                       doctest::Contains("not supported yet"), Error);
}

TEST_CASE("Qwen: a picture for an encoder without a vision tower is refused") {
  TemporaryCheckpoint file(tiny_tensors({"text_qwen3"}));
  LoadedRecipe z_image(checkpoint_recipe(*file, "lumina2"));
  Prompt prompt("a cat");
  prompt.pictures.push_back(picture(56, 56, 0));
  CHECK_THROWS_WITH_AS(z_image(prompt), doctest::Contains("no vision tower"), Error);
}
