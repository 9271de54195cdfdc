#include "distorch/tokenizers/byte_bpe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/florence2_tokens.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;
using tokenizers::ByteBpe;
using Ids = std::vector<std::int64_t>;
using Json = nlohmann::json;
namespace fs = std::filesystem;

namespace {

fs::path tiny() { return parity_dir() / "florence2"; }

Json cases() { return Json::parse(std::ifstream(parity_dir() / "florence2.json")); }

using Files = std::map<std::string, std::string>;

/// A folder of files that goes away.
class Folder {
 public:
  explicit Folder(const Files& files)
      : path_(fs::temp_directory_path() / ("distorch_bpe_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
    for (const auto& [name, text] : files) std::ofstream(path_ / name) << text;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  std::string refusal() const {
    try {
      ByteBpe::load(path_, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string text_of(const char* file) { return read_file(tiny() / file); }

/// The same vocabulary as one file.
Json as_tokenizer_json(bool pairs) {
  Json merges = Json::array();
  std::ifstream lines(tiny() / "merges.txt");
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("#")) {
      const auto blank = line.find(' ');
      merges.push_back(pairs ? Json{line.substr(0, blank), line.substr(blank + 1)} : Json(line));
    }
  const auto vocabulary = Json::parse(text_of("vocab.json"));
  Json specials = Json::array();
  for (const char* name : {"<s>", "<pad>", "</s>", "<unk>", "<mask>"})
    specials.push_back(
        {{"content", name}, {"id", vocabulary[name]}, {"lstrip", std::string(name) == "<mask>"}});
  return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}},
          {"added_tokens", specials}};
}

}  // namespace

TEST_CASE("byte-level BPE: BART's numbers of texts, from either kind of files") {
  const auto json = cases();
  Folder one(Files{{"tokenizer.json", as_tokenizer_json(false).dump()}});
  for (const auto& path : {tiny(), one.path()}) {
    auto bpe = ByteBpe::load(path, tokenizers::florence2_tokens());
    for (const auto& one_case : json["tokens"]) {
      CAPTURE(one_case.dump());
      CHECK(bpe->encode(one_case[0].get<std::string>()) == one_case[1].get<Ids>());
    }
    CHECK(bpe->special("<loc_999>") == bpe->special("<loc_0>") + 999);
    CHECK(bpe->special("<loc_1000>") == -1);
    CHECK(bpe->special("</s>") == 2);
  }
  Folder pairs(Files{{"tokenizer.json", as_tokenizer_json(true).dump()}});
  CHECK(ByteBpe::load(pairs.path(), tokenizers::florence2_tokens())->encode("the image") ==
        ByteBpe::load(tiny(), tokenizers::florence2_tokens())->encode("the image"));
}

TEST_CASE("byte-level BPE: texts of numbers, broken bytes too") {
  auto bpe = ByteBpe::load(tiny(), tokenizers::florence2_tokens());
  const auto all = cases();
  for (const auto& one : all["texts"]) {
    CAPTURE(one.dump());
    CHECK(bpe->decode(one[0].get<Ids>()) == one[1].get<std::string>());
  }
  CHECK(bpe->decode({-1, 1000000}).empty());
  // Bytes that are no text come back as they went in as far as they are UTF-8.
  const std::pair<const char*, const char*> broken[] = {
      {"a\xff", "a\xef\xbf\xbd"},
      {"\xe2\x82", "\xef\xbf\xbd"},
      {"\xf0\x9f\x99\x82 x", "\xf0\x9f\x99\x82 x"},
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}};
  for (const auto& [text, wanted] : broken) CHECK(bpe->decode(bpe->encode(text)) == wanted);
}

TEST_CASE("byte-level BPE: files that are none say so") {
  Folder empty{Files{}};
  CHECK(empty.refusal().find("vocab.json and merges.txt") != std::string::npos);
  Folder half(Files{{"vocab.json", text_of("vocab.json")}});
  CHECK(half.refusal().find("merges.txt") != std::string::npos);
  CHECK(Folder(Files{{"tokenizer.json", "{"}}).refusal().find("no JSON") != std::string::npos);
  CHECK(Folder(Files{{"tokenizer.json", R"({"model":{"type":"Unigram","vocab":[]}})"}})
            .refusal()
            .find("no byte-pair vocabulary") != std::string::npos);
  CHECK(Folder(Files{{"vocab.json", "{\"a\":0}"}, {"merges.txt", ""}})
            .refusal()
            .find("lacks the token") != std::string::npos);
  CHECK(Folder(Files{{"vocab.json", "{\"a\":-1}"}, {"merges.txt", ""}})
            .refusal()
            .find("has the number -1") != std::string::npos);
  CHECK(Folder(Files{{"vocab.json", text_of("vocab.json")}, {"merges.txt", "a b\nq\n"}})
            .refusal()
            .find("merge 1") != std::string::npos);
  auto more = as_tokenizer_json(false);
  more["added_tokens"].push_back({{"id", 7}});
  CHECK(Folder(Files{{"tokenizer.json", more.dump()}}).refusal().find("'content'") !=
        std::string::npos);
}
