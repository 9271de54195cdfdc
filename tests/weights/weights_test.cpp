#include <doctest/doctest.h>

#include <filesystem>

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
  auto lora = match_lora(
      file, {{"lora_unet_a", "a.weight"}, {"unet.b", "b.weight"}, {"lora_unet_none", "none"}});
  REQUIRE(lora.patches.size() == 2);
  CHECK(lora.patches[0].weight == "a.weight");
  CHECK(lora.patches[0].patch.scale == 0.5);
  CHECK(lora.unknown == std::vector<std::string>{"stranger"});
  auto patch = fit_patch(lora.patches[1], {4, 3}, 2.0, at::kFloat, at::kCPU);
  CHECK(patch.up.sizes() == at::IntArrayRef({4, 2}));
  CHECK(patch.scale == 2.0);
  CHECK_THROWS_AS(fit_patch(lora.patches[0], {5, 3}, 1.0, at::kFloat, at::kCPU), Error);
}

TEST_CASE("lora: adapters that are no low-rank sums are refused by name") {
  TensorFolder folder;
  auto file = folder.write("d.safetensors", {{"lora_unet_a.dora_scale", at::ones({4})}});
  CHECK_THROWS_AS(match_lora(file, {{"lora_unet_a", "a.weight"}}), Error);
}
