// HunyuanVideo 1.5's text encoders, Qwen2.5-VL and ByT5, against ComfyUI.
#include "distorch/base/error.h"
#include "distorch/models/t5/config.h"
#include "distorch/models/t5/glyphs.h"
#include "tests/models/text_tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using weights::Checkpoint;

namespace {

constexpr const char* kDump = "text_hunyuan15";

Checkpoint encoder_of(const Checkpoint& file, const std::string& name) {
  return file.part("text_encoders." + name + ".transformer.");
}

}  // namespace

TEST_CASE(
    "text recipes: prompts of HunyuanVideo 1.5 as ComfyUI encodes them, with what they quote") {
  Dump dump(kDump);
  TemporaryCheckpoint file(tiny_tensors({kDump}));
  LoadedRecipe loaded(checkpoint_recipe(*file, "hunyuan_video_15"));
  const auto& glyphs = loaded.encoder(1);
  CHECK(glyphs.width() == 32);
  int i = 0;
  for (const auto& one : cases_of(kDump)) {
    auto prompt = one["prompt"].get<std::string>();
    CAPTURE(prompt);
    auto number = std::to_string(i++);
    auto got = loaded(prompt);
    REQUIRE(got.states.size(1) == one["tokens"].get<std::int64_t>());
    CHECK(difference(got.states.slice(1, 0, got.states.size(1), 3), dump["words." + number]) <
          1e-4);
    CHECK_FALSE(got.pooled.defined());
    CHECK_FALSE(got.mask.defined());
    auto batch = glyphs.tokenize(prompt, nullptr);
    REQUIRE(batch.silent != one.contains("ids"));
    if (batch.silent) continue;
    auto ids = one["ids"].get<std::vector<std::int64_t>>();
    CHECK(batch.ids[0].equal(at::tensor(ids, at::kLong)));
    auto states = glyphs.encode(batch, {}, at::kCPU).states;
    CHECK(difference(states.slice(1, 0, states.size(1), 4), dump["glyphs." + number]) < 1e-4);
  }
}

TEST_CASE("ByT5: what a prompt quotes") {
  CHECK(t5::quoted_words("no words") == "");
  CHECK(t5::quoted_words("a \"b\" c \"d\"") == "Text \"b\". Text \"d\". ");
  CHECK(t5::quoted_words("an \"open end") == "");
  CHECK(t5::quoted_words("\u201ca\u201d then \u2018b\u2019") == "Text \"b\". Text \"a\". ");
  CHECK(t5::quoted_words("\"a\nb\"c\"") == "Text \"c\". ");
  CHECK(t5::quoted_words("\"\"") == "Text \"\". ");
}

TEST_CASE("HunyuanVideo 1.5: its two encoders are told from others, and what is missing is said") {
  TemporaryCheckpoint file(tiny_tensors({kDump}));
  auto words = encoder_of(*file, "qwen25_7b"), glyphs = encoder_of(*file, "byt5_small");
  CHECK(encoder_title(words) == "Qwen2.5-VL 7B");
  CHECK(encoder_title(glyphs) == "ByT5 small");
  CHECK(t5::text_part(glyphs).empty());
  CHECK(text_recipe({glyphs, words}, "hunyuan_video_15").encoders.size() == 2);
  CHECK_THROWS_WITH_AS(text_recipe({words}, "hunyuan_video_15"),
                       doctest::Contains("takes Qwen2.5-VL 7B and ByT5 small; this file holds"),
                       Error);
  CHECK_THROWS_WITH_AS(text_recipe({glyphs}, "sd3"), doctest::Contains("ByT5 small"), Error);
}
