// Llama 3's tokenizer: with a vocabulary of our own of its size, and, where tools/setup.sh has fetched
// the real one, against ids of the library that ComfyUI uses.
#include "distorch/tokenizers/llama_bpe.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/byte_spelling.h"
#include "tests/support/source_dir.h"
#include "tools/make_random_model/llama_vocabulary.h"

using namespace distorch;
using namespace distorch::tokenizers;
using Ids = std::vector<int>;

namespace {

std::shared_ptr<const LlamaBpe> made_up() {
  static auto bpe = LlamaBpe::from_spellings(random_model::llama_vocabulary(), "made up");
  return bpe;
}

/// FNV-1a over the ids as little-endian int32.
std::string fnv(const Ids& ids) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (auto id : ids)
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (static_cast<std::uint64_t>(id) >> shift & 0xff)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

nlohmann::json facts(const std::string& name) {
  return nlohmann::json::parse(
      read_file(test::source_dir() / "tests" / "parity" / (name + ".json")));
}

RankBpeRules small_rules(int tokens) {
  return {.name = "small", .tokens = tokens, .special = {"<end>"}};
}

/// All bytes, then these.
std::vector<std::string> with_bytes(const std::vector<std::string>& more) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

}  // namespace

TEST_CASE("Llama 3: special tokens and words of a chat template") {
  CHECK(made_up()->encode("<|start_header_id|>user<|end_header_id|>\n\nab<|eot_id|>") ==
        Ids{LlamaBpe::header_token, LlamaBpe::user_token, LlamaBpe::header_end_token,
            LlamaBpe::empty_line_token, 'a', 'b', LlamaBpe::end_of_turn_token});
  CHECK(made_up()->encode("<|begin_of_text|><image><pad><unk>") ==
        Ids{LlamaBpe::start_token, LlamaBpe::image_token, LlamaBpe::padding_token, 128256});
  CHECK(made_up()->encode("<|reserved_special_token_250|>") == Ids{128255});
  CHECK(made_up()->encode("<x") == Ids{'<', 'x'});
}

TEST_CASE(
    "Llama 3: numbers of three digits are words, words that are tokens stay, nothing is composed") {
  auto tokens = with_bytes({"12", "123", "1234", "ab", "bc", "abc"});
  auto rules = small_rules(static_cast<int>(tokens.size()));
  auto plain = RankBpe::from_tokens(tokens, "t", rules);
  CHECK(plain->encode("12345") == Ids{'1', '2', '3', '4', '5'});
  rules.most_digits = 3;
  auto threes = RankBpe::from_tokens(tokens, "t", rules);
  CHECK(threes->encode("12345") == Ids{257, '4', '5'});
  CHECK(threes->encode("1234<end>") == Ids{257, '4', 262});
  // Two tokens merge to "abc" only where nothing of lower rank takes their letters.
  CHECK(threes->encode("abc") == Ids{261});
  auto apart = with_bytes({"bc", "ab", "abc"});
  auto other = small_rules(static_cast<int>(apart.size()));
  CHECK(RankBpe::from_tokens(apart, "t", other)->encode("abc") == Ids{258});
  CHECK(threes->encode("e\xcc\x81") == Ids{'e', 0xcc, 0x81});
  rules.composed = true;
  CHECK(RankBpe::from_tokens(tokens, "t", rules)->encode("e\xcc\x81") == Ids{0xc3, 0xa9});
}

TEST_CASE("Llama 3: a word that is a token stays one that no merges lead to") {
  // "xyz" is no merge of two tokens before it.
  auto tokens = with_bytes({"xyz"});
  auto rules = small_rules(static_cast<int>(tokens.size()));
  CHECK(RankBpe::from_tokens(tokens, "t", rules)->encode("xyz") == Ids{'x', 'y', 'z'});
  rules.whole_words = true;
  CHECK(RankBpe::from_tokens(tokens, "t", rules)->encode("xyz") == Ids{256});
  CHECK(RankBpe::from_tokens(tokens, "t", rules)->encode("xyzx") == Ids{'x', 'y', 'z', 'x'});
}

TEST_CASE("Llama 3: bytes as GGUF files and tokenizer.json spell them") {
  CHECK(spelling_of_bytes(" a\n") ==
        "\xc4\xa0"
        "a"
        "\xc4\x8a");
  for (int byte = 0; byte < 256; ++byte) {
    std::string one(1, static_cast<char>(byte));
    CHECK(bytes_of_spelling(spelling_of_bytes(one)) == one);
  }
  CHECK(bytes_of_spelling("\xe6\x97\xa5").empty());
  nlohmann::json file = {{"model", {{"vocab", nlohmann::json::object()}}}};
  auto& vocabulary = file["model"]["vocab"];
  int id = 0;
  for (const auto& token : random_model::llama_vocabulary()) vocabulary[token] = id++;
  CHECK(LlamaBpe::parse_json(file.dump(), "j")->encode("user\n\n") ==
        Ids{LlamaBpe::user_token, LlamaBpe::empty_line_token});
}

TEST_CASE("Llama 3: files that are no vocabulary of its") {
  CHECK_THROWS_WITH_AS(LlamaBpe::load("/nowhere/at/all"), doctest::Contains("tools/setup.sh"),
                       Error);
  CHECK_THROWS_WITH_AS(LlamaBpe::parse("IQ== 0\n", "small"),
                       doctest::Contains("the Llama 3 vocabulary has 128000"), Error);
  CHECK_THROWS_WITH_AS(LlamaBpe::parse_json("{}", "j"), doctest::Contains("no 'model'"), Error);
  CHECK_THROWS_WITH_AS(LlamaBpe::parse_json("[", "j"), doctest::Contains("no 'model'"), Error);
  CHECK_THROWS_WITH_AS(LlamaBpe::from_spellings({"a"}, "g"), doctest::Contains("has 1 tokens"),
                       Error);
}

TEST_CASE("Llama 3: a thousand prompts with the real vocabulary as `tokenizers` has them") {
  const char* clip = std::getenv("DISTORCH_TOKENIZERS");
  auto folder = clip && *clip ? std::filesystem::path(clip).parent_path()
                              : test::source_dir() / ".deps" / "tokenizers";
  if (!std::filesystem::exists(folder / "llama3" / "tokenizer.model")) {
    MESSAGE("left out: no vocabulary in ", (folder / "llama3").string());
    return;
  }
  auto bpe = LlamaBpe::load(folder / "llama3");
  auto reference = facts("llama_tokens"), prompts = facts("long_tokens");
  std::size_t same = 0;
  for (const auto& row : prompts["prompts"]) {
    auto text = row[0].get<std::string>();
    CAPTURE(text);
    CHECK(fnv(bpe->encode(text)) == reference["hashes"][same++].get<std::string>());
  }
  for (const auto& one : reference["cases"])
    CHECK(bpe->encode(one["text"].get<std::string>()) == one["ids"].get<Ids>());
}
