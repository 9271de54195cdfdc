// Vocabulary files of T5 and Qwen: missing, broken, of another kind.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/qwen_bpe.h"
#include "distorch/tokenizers/unigram.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

const std::filesystem::path folder = test::source_dir() / ".deps/tokenizers";

template <class F>
std::string refusal(F call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& e) {
    CHECK((e.kind() == kind));
    return e.sentence();
  }
  return "accepted";
}

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}
std::string message(int number, const std::string& bytes) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string number(int field, std::uint64_t value) {
  return varint(static_cast<std::uint64_t>(field) << 3) + varint(value);
}

/// A SentencePiece model with the pieces that a tokenizer.json has.
std::string as_sentencepiece(const UnigramData& data, std::size_t count) {
  std::string model;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& piece = data.pieces[i];
    auto score = static_cast<float>(piece.score);
    std::string bits(sizeof(score), '\0');
    std::memcpy(bits.data(), &score, sizeof(score));
    auto kind = i == 2 ? 2u : i < 2 ? 3u : 1u;
    model += message(1, message(1, piece.text) + varint(2 << 3 | 5) + bits + number(3, kind));
  }
  model += message(2, number(3, 1));
  return model + message(3, message(2, data.charsmap));
}

}  // namespace

TEST_CASE("vocabulary files: what is missing says where it belongs") {
  auto nowhere = std::filesystem::temp_directory_path() / "distorch_no_such_folder";
  auto t5 = refusal([&] { Unigram::load(nowhere); }, ErrorKind::MissingFile);
  CHECK(t5.find("tools/setup.sh") != std::string::npos);
  CHECK(t5.find("tokenizers/t5/") != std::string::npos);
  auto qwen = refusal([&] { QwenBpe::load(nowhere); }, ErrorKind::MissingFile);
  CHECK(qwen.find("tokenizers/qwen/") != std::string::npos);
}

TEST_CASE("vocabulary files: a SentencePiece model gives the same ids as the tokenizer.json") {
  auto path = folder / "t5/tokenizer.json";
  auto json = read_tokenizer_json(read_file(path), path.string());
  Unigram from_json(json, "json");
  Unigram from_model(read_sentencepiece(as_sentencepiece(json, 32000), "model"), "model");
  CHECK(from_model.size() == 32100);
  for (const char* text :
       {"A photo of  a cat.", "x <extra_id_3> y</s>", "\xef\xbc\xb4\xef\xbc\x95"})
    CHECK(from_model.encode(text) == from_json.encode(text));
}

TEST_CASE("vocabulary files: broken ones are refused") {
  auto model = [](std::string bytes) {
    return refusal([&] { read_sentencepiece(bytes, "m"); }, ErrorKind::Format);
  };
  CHECK(model("").find("no SentencePiece model") != std::string::npos);
  CHECK(model("abc") != "accepted");
  CHECK(model(message(1, message(1, "a")) + "\x0a\x7f") != "accepted");
  CHECK(model(message(1, message(1, "a")) + message(2, number(3, 2))).find("unigram") !=
        std::string::npos);
  auto json = [](const std::string& text) {
    return refusal([&] { Unigram(read_tokenizer_json(text, "j"), "j"); }, ErrorKind::Format);
  };
  CHECK(json("{") != "accepted");
  CHECK(json("{}") != "accepted");
  CHECK(json(R"({"model":{"type":"BPE","vocab":{}}})").find("BPE") != std::string::npos);
  CHECK(json(R"({"model":{"vocab":[]}})") == "holds no vocabulary");
  CHECK(json(R"({"model":{"vocab":[["a",0]],"unk_id":7}})") != "accepted");
  CHECK(json(R"({"model":{"vocab":[["a",0],["b",0],["c",0]]},
                 "normalizer":{"precompiled_charsmap":"/////w=="}})")
            .find("character replacements") != std::string::npos);
  auto qwen = [](const std::string& text) {
    return refusal([&] { QwenBpe::parse(text, "q"); }, ErrorKind::Format);
  };
  CHECK(qwen("") == "has 0 tokens, the Qwen vocabulary has 151643");
  CHECK(qwen("IQ== 0\nIg== 2\n") == "line 2 is no token with the rank 1");
  CHECK(qwen("?? 0\n") == "line 1 is no token with the rank 0");
}
