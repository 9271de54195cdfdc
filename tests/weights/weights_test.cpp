#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/lora.h"
#include "distorch/weights/manifest.h"

using namespace distorch;
using namespace distorch::weights;

namespace {

/// A file of float32 tensors in a temporary folder that goes away with the object.
class TensorFolder {
 public:
  TensorFolder() {
    path_ = std::filesystem::temp_directory_path() /
            ("distorch_weights_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(path_);
  }
  ~TensorFolder() { std::filesystem::remove_all(path_); }

  Checkpoint write(const std::string& name, const std::map<std::string, at::Tensor>& tensors) {
    std::vector<formats::TensorToWrite> list;
    for (const auto& [key, tensor] : tensors)
      list.push_back({key,
                      formats::DType::F32,
                      tensor.sizes().vec(),
                      {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    formats::write_safetensors(path_ / name, list);
    return Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path_ / name)));
  }

  /// Writes zeros over the last bytes of a file, in place: its size stays, its time does not.
  void overwrite(const std::string& name) {
    auto path = path_ / name;
    auto time = std::filesystem::last_write_time(path);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-8, std::ios::end).write("\0\0\0\0\0\0\0\0", 8);
    file.close();
    std::filesystem::last_write_time(path, time + std::chrono::seconds(1));
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("scopes: names and blocks are declared, order is kept") {
  Manifest manifest;
  Scope root(manifest);
  auto first = (root / "a").block();
  auto w = (first / "proj").weight("weight", {2, 3});
  auto second = (root / "b" / 1).block("second");
  second.optional_weight("bias", {2});
  CHECK(manifest.blocks() == std::vector<std::string>{"a", "second"});
  CHECK(manifest.weights()[0].name == "a.proj.weight");
  CHECK(manifest.weights()[1].name == "b.1.bias");
  CHECK(manifest.weights()[1].block == 1);
  CHECK_FALSE(w.defined());
  CHECK_THROWS_AS(root.weight("loose", {1}), Error);
}

TEST_CASE("checkpoint: tensors lie in the mapping, parts and rows share the bytes") {
  TensorFolder folder;
  auto values = at::arange(12, at::kFloat).view({6, 2});
  auto file = folder.write(
      "a.safetensors",
      {{"model.w", values}, {"model.0.x", at::ones({1})}, {"model.1.x", at::ones({1})}});
  CHECK(at::equal(mapped_tensor(*file.find("model.w")), values));
  auto part = file.part("model.");
  part.add_rows("w.middle", *part.find("w"), 2, 2);
  CHECK(at::equal(mapped_tensor(*part.find("w.middle")), values.narrow(0, 2, 2)));
  CHECK(part.count("") == 2);
  CHECK_THROWS_AS(part.add_rows("bad", *part.find("w"), 5, 2), Error);
}

TEST_CASE("checkpoint: every fault is named at once") {
  TensorFolder folder;
  auto file = folder.write("a.safetensors", {{"w", at::ones({2, 2})}});
  Manifest manifest;
  auto scope = Scope(manifest).block("only");
  scope.weight("w", {2, 3});
  scope.weight("v", {1});
  scope.optional_weight("u", {1});
  try {
    check_complete(manifest, file, "test model");
    FAIL("was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::MissingWeight);
    CHECK(error.sentence() ==
          "is no complete test model: 'w' has shape [2, 2] where [2, 3] is needed; 'v' is missing");
  }
}

TEST_CASE("lora: spellings, alpha, leftovers") {
  TensorFolder folder;
  auto file = folder.write("l.safetensors", {{"lora_unet_a.lora_up.weight", at::ones({4, 2})},
                                             {"lora_unet_a.lora_down.weight", at::ones({2, 3})},
                                             {"lora_unet_a.alpha", at::full({}, 1.0f)},
                                             {"unet.b.lora_A.weight", at::ones({2, 3, 1, 1})},
                                             {"unet.b.lora_B.weight", at::ones({4, 2, 1, 1})},
                                             {"stranger", at::ones({1})}});
  Manifest model;
  auto scope = Scope(model).block("only");
  scope.weight("a.weight", {4, 3});
  scope.weight("b.weight", {4, 3});
  auto lora = match_lora(
      file, {{"lora_unet_a", "a.weight"}, {"unet.b", "b.weight"}, {"lora_unet_none", "none"}},
      model);
  REQUIRE(lora.adapters.size() == 2);
  CHECK(lora.adapters[0].weight == "a.weight");
  CHECK(lora.adapters[0].alpha == 1.0);
  CHECK_FALSE(lora.adapters[1].alpha.has_value());
  CHECK(lora.unknown == std::vector<std::string>{"stranger"});
  CHECK(lora.left_out.empty());
  CHECK(lora.adapters[1].size_bytes() == (4 + 3) * 2 * 4);
  auto adapter = read_adapter(lora.adapters[1], at::kCPU);
  CHECK(adapter.part(Part::Up).sizes() == at::IntArrayRef({4, 2, 1, 1}));
  CHECK_FALSE(adapter.part(Part::Mid).defined());
}

TEST_CASE("lora: what does not fit the model, and endings that nobody knows, are said") {
  TensorFolder folder;
  auto file = folder.write("m.safetensors", {{"a.lora_up.weight", at::ones({4, 2})},
                                             {"a.lora_down.weight", at::ones({2, 5})},
                                             {"b.lora_magnitude_vector", at::ones({4})},
                                             {"c.lora_up.weight", at::ones({4, 2})}});
  Manifest model;
  auto scope = Scope(model).block("only");
  for (const char* name : {"a.weight", "b.weight"}) scope.weight(name, {4, 3});
  auto lora = match_lora(file, {{"a", "a.weight"}, {"b", "b.weight"}, {"c", "c.weight"}}, model);
  CHECK(lora.adapters.empty());
  CHECK(lora.unknown == std::vector<std::string>{"c.lora_up.weight"});
  REQUIRE(lora.left_out.size() == 2);
  CHECK(lora.left_out[0] ==
        "the adapter of 'a.weight' has tensors of shape [4, 2], [2, 5], which do not make a change "
        "of a weight of shape [4, 3]");
  CHECK(lora.left_out[1] ==
        "'b.lora_magnitude_vector' belongs to 'b.weight', but no kind of adapter that distorch "
        "knows has a tensor '.lora_magnitude_vector'");
  scope.weight("c.weight", {4, 3});
  CHECK_THROWS_WITH_AS(match_lora(file, {{"c", "c.weight"}}, model),
                       doctest::Contains("has 'c.lora_up.weight' but not 'c.lora_down.weight'"),
                       Error);
}

TEST_CASE("lora: several names may change rows of one weight; what cannot is told") {
  TensorFolder folder;
  auto file = folder.write("rows.safetensors", {{"q.lora_up.weight", at::ones({4, 2})},
                                                {"q.lora_down.weight", at::ones({2, 3})},
                                                {"v.lora_up.weight", at::ones({4, 2})},
                                                {"v.lora_down.weight", at::ones({2, 3})},
                                                {"v.alpha", at::full({}, 1.0f)},
                                                {"k.set_weight", at::ones({4, 3})},
                                                {"o.lora_up.weight", at::ones({4, 2})},
                                                {"o.lora_down.weight", at::ones({2, 3})}});
  Manifest model;
  Scope(model).block("only").weight("qkv.weight", {12, 3});
  auto lora = match_lora(file,
                         {{"q", {"qkv.weight", 0, 4}},
                          {"k", {"qkv.weight", 4, 4}},
                          {"v", {"qkv.weight", 8, 4}},
                          {"o", {"qkv.weight", 10, 4}}},
                         model);
  REQUIRE(lora.adapters.size() == 2);
  CHECK(lora.adapters[0].first_row == 0);
  CHECK(lora.adapters[1].first_row == 8);
  CHECK(lora.adapters[1].rows == 4);
  CHECK(lora.adapters[1].alpha == 1.0);
  CHECK(read_adapter(lora.adapters[1], at::kCPU).first_row == 8);
  CHECK(lora.unknown.empty());
  REQUIRE(lora.left_out.size() == 2);
  CHECK(lora.left_out[0].find("known for whole weights only") != std::string::npos);
  CHECK(lora.left_out[1].find("would change rows 10 to 14 of 12") != std::string::npos);
}

TEST_CASE("lora: a file that is overwritten in place is not believed") {
  TensorFolder folder;
  std::map<std::string, at::Tensor> tensors{{"a.lora_up.weight", at::ones({4, 2})},
                                            {"a.lora_down.weight", at::ones({2, 3})},
                                            {"a.alpha", at::full({}, 1.0f)}};
  auto file = folder.write("o.safetensors", tensors);
  Manifest model;
  Scope(model).block("only").weight("a.weight", {4, 3});
  auto lora = match_lora(file, {{"a", "a.weight"}}, model);
  REQUIRE(lora.adapters.size() == 1);
  CHECK(at::equal(read_adapter(lora.adapters[0], at::kCPU).part(Part::Up), at::ones({4, 2})));
  folder.overwrite("o.safetensors");
  auto changed = doctest::Contains("was truncated or replaced while in use");
  CHECK_THROWS_WITH_AS(read_adapter(lora.adapters[0], at::kCPU), changed, Error);
  CHECK_THROWS_WITH_AS(match_lora(file, {{"a", "a.weight"}}, model), changed, Error);
}
