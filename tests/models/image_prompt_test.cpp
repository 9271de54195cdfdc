#include "distorch/models/flux/image_prompt.h"
#include "distorch/base/error.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using models::flux::block_strengths;
using models::flux::image_prompt_config;
using models::flux::image_prompt_part;
using models::flux::ImagePromptAdapter;

namespace {

void check_numbers(const std::vector<double>& got, const std::vector<double>& wanted) {
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(wanted[i]));
}

}  // namespace

// The numbers are those of x-flux-comfyui's utils.py.
TEST_CASE("image prompt: how strongly each block takes part") {
  check_numbers(block_strengths("Linear", 0, 1, 5), {0, 0.25, 0.5, 0.75, 1});
  check_numbers(block_strengths("First half", 0, 1, 7), {0, 0.5, 1, 1, 1, 1, 1});
  check_numbers(block_strengths("Second half", 2, 1, 7), {2, 2, 2, 2, 2, 1.5, 1});
  check_numbers(block_strengths("Sigmoid", 0, 1, 4),
                {-0.4820137900379085, -0.3807970779778824, 0.0, 0.38079707797788243});
  check_numbers(block_strengths("First half", 3, 1, 3), {3, 1, 1});
  CHECK_THROWS_WITH(block_strengths("Round", 0, 1, 3), doctest::Contains("'Round' is not known"));
}

TEST_CASE("image prompt: sizes are read off the file, older names without a processor too") {
  auto tensors = tiny_tensors({"xlabs_adapter"});
  TemporaryCheckpoint file(tensors);
  auto config = image_prompt_config(image_prompt_part(*file));
  CHECK(config.embedding == 20);
  CHECK(config.tokens == 3);
  CHECK(config.width == 32);
  CHECK(config.hidden == 64);
  CHECK(config.blocks == 2);

  std::map<std::string, at::Tensor> older;
  for (const auto& [name, tensor] : tensors) {
    auto to = name;
    if (auto at = to.find(".processor"); at != std::string::npos) to.erase(at, 10);
    older[to] = tensor;
  }
  TemporaryCheckpoint older_file(older);
  const auto part = image_prompt_part(*older_file);
  ImagePromptAdapter adapter(image_prompt_config(part)), same(config);
  TwiceSource source(adapter.manifest(), part, at::kFloat),
      same_source(same.manifest(), *file, at::kFloat);
  const auto embeds = tiny_weight("pictures", {2, 20});
  const auto heads = adapter.forward(embeds);
  CHECK((heads.sizes() == std::vector<std::int64_t>{1, 4, 2, 3, 64}));
  CHECK(at::equal(heads, same.forward(embeds)));
  CHECK_THROWS_WITH(adapter.forward(at::zeros({1, 7})),
                    doctest::Contains("takes pictures as 20 numbers each"));
}

TEST_CASE("image prompt: sizes that do not go together are told by name") {
  auto tensors = tiny_tensors({"xlabs_adapter"});
  tensors["ip_adapter_proj_model.norm.weight"] = at::ones({31});
  TemporaryCheckpoint file(tensors);
  CHECK_THROWS_WITH(image_prompt_config(image_prompt_part(*file)),
                    doctest::Contains("'ip_adapter_proj_model.proj.weight' has 96 rows"));
}
