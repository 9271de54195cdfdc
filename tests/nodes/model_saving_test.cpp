#include <cmath>
#include <fstream>

#include "tests/nodes/tiny_app.h"
#include "tests/support/faults.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// What a case of nodes_save.json keeps of a tensor's numbers.
std::vector<double> sums(const at::Tensor& tensor) {
  auto t = tensor.flatten().to(at::kDouble);
  auto weights = at::cos(at::arange(t.size(0), at::kDouble));
  return {t.abs().sum().item<double>(), (t * weights).sum().item<double>()};
}

void check_tensors(const weights::Checkpoint& got, const Json& wanted, const std::string& beside) {
  std::set<std::string> names;
  for (const auto& [name, stored] : got.tensors())
    if (beside.empty() || !name.starts_with(beside)) names.insert(name);
  for (const auto& [name, entry] : wanted.items()) {
    INFO(name);
    names.erase(name);
    REQUIRE(got.has(name));
    auto tensor = weights::mapped_tensor(*got.find(name));
    CHECK(tensor.sizes().vec() == entry[0].get<std::vector<std::int64_t>>());
    auto values = sums(tensor);
    auto size = entry[1].get<double>();
    for (int i = 0; i < 2; ++i)
      CHECK(std::abs(values[i] - entry[1 + i].get<double>()) <= 1e-6 * size + 1e-7);
  }
  for (const auto& name : names) FAIL_CHECK("ComfyUI writes no " << name);
}

Json saving(const std::string& node, Json inputs, const std::string& prefix) {
  inputs["filename_prefix"] = prefix;
  return {{"class_type", node}, {"inputs", inputs}};
}

Json loading(const std::string& file) {
  return {{"class_type", "CheckpointLoaderSimple"}, {"inputs", {{"ckpt_name", file}}}};
}

/// The whole checkpoint as it is.
Json saved_whole(const std::string& file) {
  return {{"1", loading(file)},
          {"2", saving("CheckpointSave",
                       {{"model", {"1", 0}}, {"clip", {"1", 1}}, {"vae", {"1", 2}}}, "whole")}};
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  return files;
}

std::string bytes_of(const weights::Stored& stored) {
  auto bytes = stored.file->mapping()->bytes(stored.range());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("saved models have ComfyUI's names, metadata and numbers") {
  auto cases = Json::parse(std::ifstream(parity_dir() / "nodes_save.json"))["cases"];
  for (const auto& one : cases) {
    auto name = one["name"].get<std::string>();
    INFO(name);
    TinyApp tiny({}, "save");
    tiny.run_well(one["workflow"]);
    auto output = tiny.folder() / "output";
    CHECK(files_in(output).size() == one["files"].size());
    const bool beside = name == "edm" || name == "zsnr" || name == "refiner";
    for (const auto& [path, wanted] : one["files"].items()) {
      INFO(path);
      REQUIRE(fs::exists(output / path));
      auto file = std::make_shared<formats::TensorFile>(formats::open_tensor_file(output / path));
      auto metadata = file->metadata();
      CHECK_FALSE(metadata["prompt"].empty());
      CHECK(metadata["workflow"] == R"({"note":"gr\u00fc\u00df"})");
      metadata.erase("prompt");
      metadata.erase("workflow");
      CHECK(metadata == wanted["metadata"].get<formats::TensorFile::Metadata>());
      check_tensors(weights::Checkpoint(file), wanted["tensors"],
                    beside ? "model.diffusion_model." : "");
    }
  }
}

TEST_CASE("a checkpoint that is saved as it is keeps every byte, and works") {
  for (const auto& name :
       {"tiny_sd1.safetensors", "tiny_sd2.safetensors", "tiny_sdxl.safetensors"}) {
    INFO(name);
    TinyApp tiny({}, "save_whole");
    auto before = tiny.value_of(sampling_prompt(name), {"5", 0}).as<sampling::Latent>().samples;
    tiny.run_well(saved_whole(name));
    auto saved = tiny.folder() / "output" / "whole_00001_.safetensors";
    auto source = open_checkpoint(tiny_models() / "checkpoints" / name);
    auto copy = open_checkpoint(saved);
    for (const auto& [tensor, stored] : source.tensors()) {
      INFO(tensor);
      REQUIRE(copy.has(tensor));
      CHECK(copy.find(tensor)->dtype == stored.dtype);
      CHECK(bytes_of(*copy.find(tensor)) == bytes_of(stored));
    }
    auto target = tiny_models() / "checkpoints" / "saved_again.safetensors";
    fs::copy_file(saved, target, fs::copy_options::overwrite_existing);
    TinyApp again({}, "save_again");
    auto after = again.value_of(sampling_prompt("saved_again.safetensors"), {"5", 0});
    CHECK(at::equal(after.as<sampling::Latent>().samples, before));
    fs::remove(target);
  }
}

TEST_CASE("a full disk leaves no saved model, whole or half") {
  TinyApp tiny({}, "save_full");
  auto prompt = saved_whole("tiny_sd1.safetensors");
  // The header, a tensor, the last ones.
  for (int nth : {1, 2, 40, 900}) {
    CAPTURE(nth);
    tiny.forget_results();
    fail_call(Call::Write, nth);
    auto result = tiny.run(prompt);
    fail_call(Call::Write, 0);
    CHECK(result.run.status == graph::RunStatus::Error);
    CHECK(result.error.find("whole_00001_.safetensors") != std::string::npos);
    CHECK(result.error.find("No space left") != std::string::npos);
    CHECK(files_in(tiny.folder() / "output").empty());
  }
  // Of two encoders' files the first one goes too.
  Json clips = {{"1", loading("tiny_sdxl.safetensors")},
                {"2", saving("CLIPSave", {{"clip", {"1", 1}}}, "clips")}};
  fail_call(Call::Write, 70);
  auto result = tiny.run(clips);
  fail_call(Call::Write, 0);
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(files_in(tiny.folder() / "output").empty());
  tiny.run_well(prompt);
  CHECK(files_in(tiny.folder() / "output").size() == 1);
}

TEST_CASE("what lies in 8 bits is saved so") {
  TinyApp tiny({}, "save_fp8");
  auto unet = tiny_models() / "diffusion_models" / "for_saving.safetensors";
  fs::create_directories(unet.parent_path());
  auto tensors = tiny_tensors({"unet_sd1"});
  write_tensors(unet, tensors);
  auto model = [](const std::string& dtype) -> Json {
    return {{"class_type", "UNETLoader"},
            {"inputs", {{"unet_name", "for_saving.safetensors"}, {"weight_dtype", dtype}}}};
  };
  tiny.run_well(
      {{"1", model("fp8_e4m3fn")}, {"2", saving("ModelSave", {{"model", {"1", 0}}}, "plain")}});
  auto file = open_checkpoint(tiny.folder() / "output" / "plain_00001_.safetensors");
  const std::string changed = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";
  for (const auto& [name, stored] : file.tensors()) {
    CAPTURE(name);
    REQUIRE(stored.dtype == formats::DType::F8_E4M3);
    CHECK(at::equal(weights::mapped_tensor(stored).to(at::kFloat),
                    tensors.at(name).to(at::kFloat8_e4m3fn).to(at::kFloat)));
  }
  // A small change of such weights moves their mean, which the nearest numbers would not.
  auto lora = tiny_models() / "loras";
  fs::create_directories(lora);
  auto weight = tensors.at(changed);
  write_tensors(lora / "small_step.safetensors",
                {{"diffusion_model.input_blocks.1.0.in_layers.2.diff",
                  at::full_like(weight, 1.0).mul(0.001)}});
  tiny.run_well({{"1", model("fp8_e4m3fn")},
                 {"3",
                  {{"class_type", "LoraLoaderModelOnly"},
                   {"inputs",
                    {{"model", {"1", 0}},
                     {"lora_name", "small_step.safetensors"},
                     {"strength_model", 1.0}}}}},
                 {"2", saving("ModelSave", {{"model", {"3", 0}}}, "changed")}});
  auto after = open_checkpoint(tiny.folder() / "output" / "changed_00001_.safetensors");
  auto value = [](const weights::Checkpoint& from, const std::string& name) {
    return weights::mapped_tensor(*from.find(name)).to(at::kFloat);
  };
  auto moved = (value(after, changed) - value(file, changed)).mean().item<double>();
  CHECK(moved == doctest::Approx(0.001).epsilon(0.1));
  const std::string other = "model.diffusion_model.out.2.weight";
  CHECK(at::equal(value(after, other), value(file, other)));
  fs::remove(unet);
  fs::remove_all(lora);
}

TEST_CASE("scaled 8-bit weights keep their scales and marks when they are saved") {
  TinyApp tiny({}, "save_scaled");
  auto folder = tiny_models() / "diffusion_models";
  fs::create_directories(folder);
  auto tensors = tiny_tensors({"unet_sd1"});
  std::map<std::string, at::Tensor> scaled;
  for (auto& [name, tensor] : tensors) {
    bool linear = tensor.dim() == 2 && name.ends_with(".weight");
    if (!linear) {
      scaled[name] = tensor;
      continue;
    }
    auto scale = tensor.abs().max() / 400;
    scaled[name] = (tensor / scale).to(at::kFloat8_e4m3fn);
    scaled[name.substr(0, name.size() - 6) + "scale_weight"] = scale;
  }
  scaled["model.diffusion_model.scaled_fp8"] = at::empty({2}).to(at::kFloat8_e4m3fn);
  write_tensors(folder / "scaled.safetensors", scaled);
  tiny.run_well({{"1",
                  {{"class_type", "UNETLoader"},
                   {"inputs", {{"unet_name", "scaled.safetensors"}, {"weight_dtype", "default"}}}}},
                 {"2", saving("ModelSave", {{"model", {"1", 0}}}, "scaled")}});
  auto source = formats::open_tensor_file(folder / "scaled.safetensors");
  auto copy = formats::open_tensor_file(tiny.folder() / "output" / "scaled_00001_.safetensors");
  CHECK(copy.tensors().size() == source.tensors().size());
  for (const auto& info : source.tensors()) {
    INFO(info.name);
    const auto* found = copy.find(info.name);
    REQUIRE(found);
    CHECK(found->shape == info.shape);
    auto a = copy.bytes(*found), b = source.bytes(info);
    CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
  fs::remove(folder / "scaled.safetensors");
}

TEST_CASE("what does not belong into a checkpoint is named, and nothing is written") {
  TinyApp tiny({}, "save_wrong");
  auto result = tiny.run(
      {{"1", loading("tiny_sd1.safetensors")},
       {"3", loading("tiny_sd2.safetensors")},
       {"2", saving("CheckpointSave", {{"model", {"1", 0}}, {"clip", {"3", 1}}, {"vae", {"1", 2}}},
                    "wrong")}});
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(result.error.find("clip_h") != std::string::npos);
  CHECK(result.error.find("tiny_sd1.safetensors") != std::string::npos);
  CHECK(files_in(tiny.folder() / "output").empty());
}
