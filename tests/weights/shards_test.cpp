#include "distorch/weights/shards.h"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/support/tensor_files.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::weights;

namespace {

std::vector<std::string> names_of(const std::vector<std::filesystem::path>& files) {
  std::vector<std::string> names;
  for (const auto& file : files) names.push_back(file.filename().string());
  return names;
}

using Names = std::vector<std::string>;

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("shards: which names are parts of a model in several files") {
  TensorFiles files;
  auto of = [&](const std::string& name) { return names_of(shards_of(files.path(name))); };
  CHECK(of("m-00002-of-00003.bin") ==
        Names{"m-00001-of-00003.bin", "m-00002-of-00003.bin", "m-00003-of-00003.bin"});
  CHECK(of("a-b-00001-of-00001.safetensors") == Names{"a-b-00001-of-00001.safetensors"});
  CHECK(of("m-00012-of-00012.x").size() == 12);
  CHECK(of("m-00012-of-00012.x").back() == "m-00012-of-00012.x");
  for (const char* alone : {"m.safetensors", "m-00000-of-00003.bin", "m-00004-of-00003.bin",
                            "-00001-of-00002.bin", "m-0001-of-0003.bin", "m-00001-of-0000x.bin",
                            "m-0000x-of-00002.bin", "m_00001-of-00002.bin", "m-00001-to-00002.bin",
                            "00001-of-00002.bin", "m-00001-of-00002-fp16.bin"}) {
    CAPTURE(alone);
    CHECK(of(alone) == Names{alone});
  }
}

TEST_CASE(
    "shards: the index says which files, each once, where it knows the one that is asked for") {
  TensorFiles files;
  auto index = files.path("m.safetensors.index.json");
  auto of = [&](const std::string& name) { return names_of(shards_of(files.path(name))); };
  write(index, R"({"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "extra.safetensors",
                                  "c": "m-00001-of-00002.safetensors"}})");
  CHECK(of("m-00001-of-00002.safetensors") ==
        Names{"extra.safetensors", "m-00001-of-00002.safetensors"});
  // Itself it stands for all of them.
  CHECK(of("m.safetensors.index.json") ==
        Names{"extra.safetensors", "m-00001-of-00002.safetensors"});
  CHECK(refusal([&] { complete_shards_of(index); }) ==
        "missing_file|m.safetensors.index.json|lists 2 files of a model; 2 of them are not in its "
        "folder: extra.safetensors, m-00001-of-00002.safetensors");
  // The index is another model's, or this file's extension is another one.
  CHECK(of("m-00002-of-00002.safetensors") ==
        Names{"m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"});
  CHECK(of("m-00001-of-00002.bin") == Names{"m-00001-of-00002.bin", "m-00002-of-00002.bin"});
}

TEST_CASE("shards: a broken index is refused with what is wrong") {
  TensorFiles files;
  auto index = files.path("m.safetensors.index.json");
  auto refused = [&](const std::string& text) {
    write(index, text);
    return refusal([&] { shards_of(files.path("m-00001-of-00002.safetensors")); });
  };
  const std::string at = "format|m.safetensors.index.json|";
  for (const char* text : {"", "{", "[]", "{}", R"({"weight_map": []})"})
    CHECK(refused(text) == at + "is no index of a model in several files: it has no 'weight_map'");
  CHECK(refused(R"({"weight_map": {}})") == at + "lists no files");
  for (const char* name :
       {"7", R"("../m.bin")", R"("/m.bin")", R"("d/m.bin")", R"("")", R"("..")", R"(".")"}) {
    CAPTURE(name);
    CHECK(refused(R"({"weight_map": {"a": "m-00001-of-00002.safetensors", "t": )" +
                  std::string(name) + "}}") == at + "names no file beside it for 't'");
  }
}

TEST_CASE("shards: one error names every file that is not there") {
  TensorFiles files;
  auto complete = [&](const std::string& name) {
    return refusal([&] { complete_shards_of(files.path(name)); });
  };
  write(files.path("m-00002-of-00003.x"), "");
  CHECK(complete("m-00002-of-00003.x") ==
        "missing_file|m-00002-of-00003.x|is one of 3 files of a model; 2 of them are not in its "
        "folder: m-00001-of-00003.x, m-00003-of-00003.x");
  write(files.path("m-00001-of-00003.x"), "");
  CHECK(complete("m-00002-of-00003.x") ==
        "missing_file|m-00002-of-00003.x|is one of 3 files of a model; 1 of them is not in its "
        "folder: m-00003-of-00003.x");
  write(files.path("m-00003-of-00003.x"), "");
  CHECK(complete_shards_of(files.path("m-00002-of-00003.x")).size() == 3);
  // Whoever opens a single file says that it is missing.
  CHECK(complete("alone.x") == "accepted");
}

TEST_CASE(
    "shards: tensors of all files are one model; a name twice, or a scale apart, is refused") {
  TensorFiles files;
  auto one = raw(at::ones({1})), two = raw(at::full({1}, 2.0f));
  auto a = files.write("a", {{"x", one}, {"y", one}}), b = files.write("b", {{"z", two}});
  auto all = joined_shards({a, b});
  CHECK(all.tensors().size() == 3);
  CHECK(all.path() == files.path("a").string());
  CHECK(mapped_tensor(*all.find("z")).item<float>() == 2);
  auto c = files.write("c", {{"y", two}});
  CHECK(refusal([&] { joined_shards({a, b, c}); }) == "format|c|holds 'y', which a holds too");

  auto weight = raw(at::ones({2, 2}).to(at::kFloat8_e4m3fn));
  for (const char* name : {"l.scale_weight", "l.weight_scale", "l.comfy_quant"}) {
    CAPTURE(name);
    auto w = files.write("w", {{"l.weight", weight}}), s = files.write("s", {{name, one}});
    CHECK(refusal([&] { joined_shards({w, s}); }) ==
          "format|s|holds '" + std::string(name) +
              "', and w the weight; a model in several files must keep the two together");
  }
  auto w = files.write("w", {{"l.weight", weight}, {"l.scale_weight", one}});
  CHECK(refusal([&] { joined_shards({b, w}); }) == "accepted");
  auto lone = files.write("lone", {{"other.scale_weight", one}, {"scale_weight", one}});
  CHECK(refusal([&] { joined_shards({w, lone}); }) == "accepted");
}
