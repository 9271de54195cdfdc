// What GGUF text encoders have elsewhere than other files: vision towers in files of their own,
// vocabularies in the header.
#include <unistd.h>

#include "distorch/base/error.h"
#include "distorch/formats/gguf_writer.h"
#include "distorch/models/gguf_names.h"
#include "distorch/models/gguf_tokenizer.h"
#include "distorch/models/gguf_vision.h"
#include "distorch/quant/gguf.h"
#include "distorch/tokenizers/sentence_piece.h"
#include "tests/models/tiny.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
namespace fs = std::filesystem;

namespace {

class GgufFolder {
 public:
  GgufFolder() {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~GgufFolder() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }

  /// A file of one tensor.
  fs::path write(const std::string& name, const formats::GgufSettings& settings) const {
    static const std::vector<float> numbers(4, 1.0f);
    formats::write_gguf(path_ / name,
                        {{.name = "output_norm.weight",
                          .type = formats::block_type_named("F32"),
                          .shape = {4},
                          .bytes = std::as_bytes(std::span(numbers))}},
                        settings);
    return path_ / name;
  }

 private:
  fs::path path_ =
      fs::temp_directory_path() / ("distorch_gguf_parts_" + std::to_string(::getpid()));
};

std::vector<int> ids_of(const at::Tensor& model, const std::string& text) {
  const tokenizers::SentencePiece tokenizer(
      {static_cast<const char*>(model.const_data_ptr()), model.nbytes()}, "test");
  return tokenizer.encode(text);
}

std::shared_ptr<const formats::TensorFile> open(const fs::path& path) {
  return std::make_shared<formats::TensorFile>(formats::open_tensor_file(path));
}

}  // namespace

TEST_CASE("gguf: UMT5's vocabulary from the header gives the ids that ComfyUI-GGUF gives") {
  const auto model = gguf_sentence_piece(open(parity_dir() / "umt5_tokens.gguf"));
  REQUIRE(model.defined());
  const auto json = nlohmann::json::parse(std::ifstream(parity_dir() / "gguf_tokens.json"));
  for (const auto& c : json.at("cases")) {
    CAPTURE(c.at("prompt").get<std::string>());
    auto ids = ids_of(model, c.at("prompt").get<std::string>());
    ids.push_back(1);
    CHECK(ids == c.at("ids").get<std::vector<int>>());
  }
}

TEST_CASE("gguf: a header without a vocabulary, or with a broken one") {
  const GgufFolder folder;
  const std::pair<std::string, formats::GgufSetting> architecture{"general.architecture",
                                                                  std::string("t5encoder")};
  CHECK_FALSE(gguf_sentence_piece(open(folder.write("none.gguf", {architecture}))).defined());
  CHECK_FALSE(gguf_sentence_piece(nullptr).defined());
  CHECK_FALSE(gguf_sentence_piece(open(parity_dir() / "umt5.safetensors")).defined());
  const std::pair<std::string, formats::GgufSetting> t5{"tokenizer.ggml.model", std::string("t5")};
  auto refusal = [&](formats::GgufSettings settings) {
    settings.insert(settings.begin(), {architecture, t5});
    try {
      gguf_sentence_piece(open(folder.write("broken.gguf", settings)));
    } catch (const Error& problem) {
      return std::string(problem.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal({}).find("no list 'tokenizer.ggml.tokens'") != std::string::npos);
  const std::vector<std::string> tokens{"a", "b"};
  CHECK(refusal({{"tokenizer.ggml.tokens", tokens},
                 {"tokenizer.ggml.scores", std::vector<std::int32_t>{1}},
                 {"tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1}}})
            .find("a tokenizer of 2 tokens with 1 scores and 2 types") != std::string::npos);
  CHECK(refusal({{"tokenizer.ggml.tokens", std::vector<std::int32_t>{1}}}) != "accepted");
}

TEST_CASE("gguf: the file of a vision tower is found beside its text encoder") {
  const GgufFolder folder;
  const formats::GgufSettings encoder = {{"general.architecture", std::string("qwen2vl")}};
  const formats::GgufSettings tower = {{"general.architecture", std::string("clip")},
                                       {"general.type", std::string("mmproj")}};
  auto found = [&](const std::string& name) {
    const auto path = folder / name;
    auto file = vision_file_of(open_checkpoint(path), path);
    return file ? file->filename().string() : "";
  };
  for (const char* name : {"Qwen2.5-VL-7B-Instruct-UD-Q4_K_XL.gguf",
                           "Qwen2.5-VL-7B-Instruct-iq4_xs.gguf", "Qwen2.5-VL-7B-Instruct.gguf"}) {
    folder.write(name, encoder);
    CHECK(found(name).empty());
  }
  folder.write("mmproj-qwen2.5-vl-3b.gguf", tower);
  folder.write("Qwen2.5-VL-7B-Instruct-Q8_0.gguf", encoder);
  CHECK(found("Qwen2.5-VL-7B-Instruct-Q8_0.gguf").empty());
  folder.write("qwen2.5-vl-7b-instruct-MMPROJ-f16.GGUF", tower);
  for (const char* name :
       {"Qwen2.5-VL-7B-Instruct-UD-Q4_K_XL.gguf", "Qwen2.5-VL-7B-Instruct-iq4_xs.gguf",
        "Qwen2.5-VL-7B-Instruct.gguf", "Qwen2.5-VL-7B-Instruct-Q8_0.gguf"})
    CHECK(found(name) == "qwen2.5-vl-7b-instruct-MMPROJ-f16.GGUF");
  folder.write("Qwen2.5-VL-7B-Instruct-mmproj-BF16.gguf", tower);
  CHECK(found("Qwen2.5-VL-7B-Instruct.gguf") == "Qwen2.5-VL-7B-Instruct-mmproj-BF16.gguf");
  // Another model has none.
  folder.write("qwen3-Q8_0.gguf", {{"general.architecture", std::string("qwen3")}});
  folder.write("qwen3-mmproj.gguf", tower);
  CHECK(found("qwen3-Q8_0.gguf").empty());
}

TEST_CASE("gguf: text encoders are decoded in float16, as in ComfyUI-GGUF") {
  const GgufFolder folder;
  const std::vector<std::byte> zeros(2 * 34);
  formats::write_gguf(folder / "encoder.gguf",
                      {{.name = "token_embd.weight",
                        .type = formats::block_type_named("Q8_0"),
                        .shape = {2, 32},
                        .bytes = zeros},
                       {.name = "output_norm.weight",
                        .type = formats::block_type_named("F32"),
                        .shape = {17},  // 68 bytes
                        .bytes = zeros}},
                      {{"general.architecture", std::string("qwen3")}});
  const auto raw = open_checkpoint(folder / "encoder.gguf");
  const auto ours = with_our_names(raw);
  const auto* packed = raw.find("token_embd.weight")->encoding;
  CHECK(ours.find("model.embed_tokens.weight")->encoding == quant::gguf_in_half(packed));
  CHECK(ours.find("model.norm.weight")->encoding == nullptr);
  CHECK(gguf_rounded(raw, at::kBFloat16).find("token_embd.weight")->encoding ==
        quant::gguf_rounded_to(packed, at::kBFloat16));
  auto joined = raw;
  joined.add_joined("both", {*raw.find("token_embd.weight"), *raw.find("token_embd.weight")});
  const auto rounded = gguf_as_in_comfyui(joined);
  for (const auto& piece : rounded.find("both")->parts)
    CHECK(piece.encoding == quant::gguf_in_half(packed));
  // What ComfyUI-GGUF leaves to another package stays as it is.
  auto other = *raw.find("token_embd.weight");
  other.encoding = quant::encoding_named("IQ2_S");
  joined.add("other", other);
  CHECK(gguf_as_in_comfyui(joined).find("other")->encoding == other.encoding);
}
