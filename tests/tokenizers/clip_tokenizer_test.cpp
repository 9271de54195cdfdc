#include "distorch/tokenizers/clip_tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

const std::filesystem::path source = test::source_dir();

std::shared_ptr<const ClipBpe> vocabulary() {
  static auto v = ClipBpe::load(source / ".deps/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz");
  return v;
}

/// The embedding files that the parity script makes, by every name that leads to them.
std::optional<int> rows_of(const std::string& name) {
  static const std::map<std::string, int> rows = {
      {"tiny", 2}, {"tiny.safetensors", 2}, {"tiny2", 3}, {"big", 10}, {"one", 1}, {"sub/deep", 1}};
  auto found = rows.find(name);
  return found == rows.end() ? std::nullopt : std::optional<int>(found->second);
}

std::vector<nlohmann::json> unpacked(const nlohmann::json& chunk) {
  std::vector<nlohmann::json> tokens = chunk["tokens"];
  // "repeat_last" counts the further copies of the last token.
  for (int i = 0; i < chunk.value("repeat_last", 0); ++i) tokens.push_back(tokens.back());
  return tokens;
}

void compare(const PromptTokens& ours, const nlohmann::json& theirs) {
  REQUIRE(ours.chunks.size() == theirs.size());
  std::map<std::string, std::string> same;  // their vector -> our embedding and row
  for (std::size_t c = 0; c < theirs.size(); ++c) {
    auto want = unpacked(theirs[c]);
    REQUIRE(ours.chunks[c].size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      const auto& token = ours.chunks[c][i];
      CAPTURE(c);
      CAPTURE(i);
      CHECK(token.weight == doctest::Approx(want[i][1].get<double>()).epsilon(1e-6));
      CHECK(token.word_id == want[i][2].get<int>());
      REQUIRE(token.is_embedding() == want[i][0].is_array());
      if (!token.is_embedding()) {
        CHECK(token.id == want[i][0].get<int>());
        continue;
      }
      auto place = ours.embeddings[static_cast<std::size_t>(token.embedding)] + "#" +
                   std::to_string(token.row);
      auto [known, fresh] = same.emplace(want[i][0].dump(), place);
      CHECK((fresh || known->second == place));
    }
  }
}

}  // namespace

TEST_CASE("clip tokenizer: the same tokens, weights and words as ComfyUI") {
  auto cases = nlohmann::json::parse(read_file(source / "tests/parity/clip_tokens.json"))["cases"];
  REQUIRE(cases.size() >= 100);
  ClipTokenizer l(vocabulary(), clip_l_options), h(vocabulary(), clip_h_options);
  int compared = 0;
  for (const auto& c : cases) {
    auto prompt = c["prompt"].get<std::string>();
    // Weights that are not finite are text here: see prompt.h. "embedding:" without a name is an
    // error there, text here.
    if (prompt == "(cat:inf)" || prompt == "(cat:nan)" || c.contains("l_error")) continue;
    CAPTURE(prompt);
    compare(l.tokenize(prompt, rows_of), c["l"]);
    if (c.contains("h")) compare(h.tokenize(prompt, rows_of), c["h"]);
    ++compared;
  }
  CHECK(compared >= 120);
}

TEST_CASE("clip tokenizer: embeddings that are there, missing, or not looked for") {
  ClipTokenizer tokenizer(vocabulary());
  auto found =
      tokenizer.tokenize("(a embedding:tiny, b:1.5) embedding:tiny embedding:absent, c", rows_of);
  CHECK(found.embeddings == std::vector<std::string>{"tiny"});
  CHECK(found.missing == std::vector<std::string>{"absent"});
  REQUIRE(found.chunks.size() == 1);
  const auto& chunk = found.chunks[0];
  CHECK(chunk[2] == Token{.weight = 1.5f, .word_id = 2, .embedding = 0, .row = 0});
  CHECK(chunk[3] == Token{.weight = 1.5f, .word_id = 2, .embedding = 0, .row = 1});

  auto plain = tokenizer.tokenize("embedding:tiny");
  CHECK(plain.embeddings.empty());
  CHECK_FALSE(plain.chunks[0][1].is_embedding());
  auto nameless = tokenizer.tokenize("embedding:", rows_of);
  CHECK(nameless.missing.empty());
  CHECK(vocabulary()->text_of(nameless.chunks[0][1].id) == "embed");
}

TEST_CASE("clip tokenizer: every chunk is whole, whatever the bytes") {
  ClipTokenizer tokenizer(vocabulary(), clip_h_options);
  std::mt19937 random(3);
  const std::vector<std::string> pieces = {"(",
                                           ")",
                                           "\\(",
                                           "\\)",
                                           ":1.2",
                                           ":",
                                           " embedding:",
                                           "tiny",
                                           "big",
                                           ",",
                                           " ",
                                           "\n",
                                           "cat",
                                           "it's",
                                           "\xff",
                                           "\xc3",
                                           "\xe2\x98\x83",
                                           "<|endoftext|>",
                                           "\xe4\xb8\xad",
                                           std::string(1, '\0'),
                                           "\\",
                                           "<|startoftext",
                                           "\xcc\x81",
                                           "9"};
  for (int round = 0; round < 3000; ++round) {
    std::string prompt;
    bool bytes = round % 3 == 0;
    for (auto n = random() % 120; n > 0; --n) {
      if (bytes)
        prompt.push_back(static_cast<char>(random()));
      else
        prompt += pieces[random() % pieces.size()];
    }
    auto result = tokenizer.tokenize(prompt, rows_of);
    REQUIRE(!result.chunks.empty());
    for (const auto& chunk : result.chunks) {
      REQUIRE(chunk.size() == 77);
      CHECK(chunk[0].id == ClipBpe::start_token);
      for (const auto& token : chunk) {
        CHECK((token.id >= 0 && token.id <= ClipBpe::end_token));
        CHECK(token.embedding < static_cast<int>(result.embeddings.size()));
      }
      CHECK(std::ranges::any_of(
          chunk, [](const Token& t) { return t.id == ClipBpe::end_token && t.word_id == 0; }));
    }
  }
}

TEST_CASE("clip tokenizer: prompts without end take time in proportion, not squared") {
  ClipTokenizer tokenizer(vocabulary());
  CHECK(tokenizer.tokenize(std::string(300000, 'x')).chunks.size() > 10);
  CHECK(tokenizer.tokenize(std::string(300000, ')')).chunks.size() > 10);
  std::string groups;
  for (int i = 0; i < 20000; ++i) groups += "(a:1.1)";
  CHECK(tokenizer.tokenize(groups).chunks.size() > 200);
}
