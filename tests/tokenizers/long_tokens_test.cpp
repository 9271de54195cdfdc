// T5's and Qwen's tokenizers, against ids of the libraries that ComfyUI uses.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/tokenizers/prompt_tokenizer.h"
#include "distorch/tokenizers/qwen_bpe.h"
#include "distorch/tokenizers/unigram.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

const std::filesystem::path source = test::source_dir();
const std::filesystem::path folder = source / ".deps/tokenizers";

std::shared_ptr<const Unigram> t5() {
  static auto v = Unigram::load(folder / "t5");
  return v;
}

std::shared_ptr<const QwenBpe> qwen() {
  static auto v = QwenBpe::load(folder / "qwen");
  return v;
}

/// FNV-1a over the ids as little-endian int32.
std::string fnv(const std::vector<int>& ids) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (auto id : ids)
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (static_cast<std::uint64_t>(id) >> shift & 0xff)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

std::string joined(const std::vector<int>& ids) { return fmt::format("{}", fmt::join(ids, " ")); }

const nlohmann::json& reference() {
  static auto file = nlohmann::json::parse(read_file(source / "tests/parity/long_tokens.json"));
  return file;
}

}  // namespace

TEST_CASE("long tokens: 1000 prompts as T5TokenizerFast and Qwen2Tokenizer have them") {
  int same_t5 = 0, same_qwen = 0;
  for (const auto& row : reference()["prompts"]) {
    auto text = row[0].get<std::string>();
    auto a = t5()->encode(text), b = qwen()->encode(text);
    CAPTURE(text);
    CHECK_MESSAGE(fnv(a) == row[2].get<std::string>(), joined(a), " not ", row[1].get<int>());
    CHECK_MESSAGE(fnv(b) == row[4].get<std::string>(), joined(b), " not ", row[3].get<int>());
    same_t5 += fnv(a) == row[2].get<std::string>();
    same_qwen += fnv(b) == row[4].get<std::string>();
  }
  CHECK(same_t5 == 1000);
  CHECK(same_qwen == 1000);
}

TEST_CASE("long tokens: T5 prompts with weights, filled up to 256") {
  PromptTokenizer tokenizer([](std::string_view text) { return t5()->encode(text); },
                            {.min_length = 256, .end = Unigram::end_token});
  for (const auto& c : reference()["weighted"]) {
    auto result = tokenizer.tokenize(c["prompt"].get<std::string>());
    REQUIRE(result.chunks.size() == 1);
    auto chunk = result.chunks[0];
    CHECK(chunk.size() == c["length"].get<std::size_t>());
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      bool padded = i >= c["ids"].size();
      CHECK(chunk[i].id == (padded ? 0 : c["ids"][i].get<int>()));
      CHECK(chunk[i].weight == doctest::Approx(padded ? 1.0 : c["weights"][i].get<double>()));
    }
  }
}

TEST_CASE("long tokens: endless words take time in proportion, any bytes are taken") {
  CHECK(t5()->encode(std::string(200000, 'x')).size() > 10);
  CHECK(qwen()->encode(std::string(200000, 'x')).size() > 10);
  CHECK(t5()->encode(std::string(200000, '<')).size() == 2);  // one long unknown
  CHECK(qwen()->encode(std::string(200000, '<')).size() > 10);
  CHECK(qwen()->encode(std::string(200000, ' ')).size() > 10);
  std::string bytes;
  for (int i = 0; i < 4000; ++i) bytes.push_back(static_cast<char>(i * 197));
  CHECK(!t5()->encode(bytes).empty());
  CHECK(!qwen()->encode(bytes).empty());
}
