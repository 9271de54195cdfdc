#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "distorch/quant/bf16_planes.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

// UNets packed without loss through the nodes: the picture is the plain file's, bit for bit.
namespace {

const std::string kUnet = "model.diffusion_model.";

formats::TensorToWrite to_write(const std::string& name, formats::DType dtype,
                                const at::Tensor& tensor) {
  return {.name = name,
          .dtype = dtype,
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

/// tiny_sd1's UNet in bf16 in diffusion_models/, plain or packed; how many weights are packed.
int write_unet(const std::string& file, bool packed) {
  std::vector<formats::TensorToWrite> list;
  std::vector<at::Tensor> held;
  int count = 0;
  for (const auto& [name, value] : tiny_tensors({"unet_sd1"})) {
    if (!name.starts_with(kUnet)) continue;
    auto weight = value.to(at::kBFloat16).contiguous();
    auto planes = packed ? quant::pack_bf16(weight) : std::nullopt;
    if (!planes || !name.ends_with(".weight")) {
      held.push_back(weight);
      list.push_back(to_write(name, formats::DType::BF16, weight));
      continue;
    }
    ++count;
    held.insert(held.end(), {planes->values, planes->parts[0], planes->parts[1]});
    list.push_back(to_write(name, formats::DType::U8, planes->values));
    list.push_back(to_write(name + "_codes", formats::DType::U8, planes->parts[0]));
    list.push_back(to_write(name + "_exponents", formats::DType::U8, planes->parts[1]));
  }
  fs::create_directories(tiny_models() / "diffusion_models");
  formats::write_safetensors(tiny_models() / "diffusion_models" / file, list);
  return count;
}

Json prompt_of(const std::string& file, bool lora) {
  auto prompt = sampling_prompt();
  prompt["9"] = {{"class_type", "UNETLoader"},
                 {"inputs", {{"unet_name", file}, {"weight_dtype", "default"}}}};
  prompt["10"] = {
      {"class_type", "LoraLoaderModelOnly"},
      {"inputs",
       {{"model", {"9", 0}}, {"lora_name", "kohya.safetensors"}, {"strength_model", 1.0}}}};
  prompt["5"]["inputs"]["model"] = {lora ? "10" : "9", 0};
  return prompt;
}

at::Tensor latent_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

}  // namespace

TEST_CASE("packed bf16: the plain file's picture, resident, streamed, on the CPU, with a LoRA") {
  write_unet("plain_bf16.safetensors", false);
  CHECK(write_unet("packed_bf16.safetensors", true) > 20);
  auto rig = small_rig(1, 512 << 20);
  sim::install(rig, sim::Mode::Exec);
  for (const char* allocation : {"cpu", "", "sim:0,40%;cpu,60%"}) {
    streaming::EngineOptions options;
    if (allocation != std::string("cpu")) {
      options.rig = rig;
      options.default_device = "sim:0";
      options.override_allocation = allocation;
    }
    for (bool lora : {false, true}) {
      CAPTURE(allocation);
      CAPTURE(lora);
      TinyApp plain(options), packed(options);
      auto wanted = latent_of(plain, prompt_of("plain_bf16.safetensors", lora));
      CHECK(at::equal(latent_of(packed, prompt_of("packed_bf16.safetensors", lora)), wanted));
      auto model =
          packed.value_of(prompt_of("packed_bf16.safetensors", lora), {"9", 0}).as<nodes::Model>();
      auto plain_model =
          plain.value_of(prompt_of("plain_bf16.safetensors", lora), {"9", 0}).as<nodes::Model>();
      // The travelling bytes are the packed ones.
      CHECK(model.loaded->weights->total_file_bytes() <
            plain_model.loaded->weights->total_file_bytes());
    }
  }
}

TEST_CASE("packed bf16: a saved model stays packed, what a LoRA changes becomes plain") {
  write_unet("packed_bf16.safetensors", true);
  TinyApp tiny({}, "save_packed");
  auto prompt = prompt_of("packed_bf16.safetensors", true);
  auto save = [](const char* model, const char* name) -> Json {
    return {{"class_type", "ModelSave"},
            {"inputs", {{"model", {model, 0}}, {"filename_prefix", name}}}};
  };
  tiny.run_well({{"9", prompt["9"]},
                 {"10", prompt["10"]},
                 {"11", save("9", "same")},
                 {"12", save("10", "changed")}});
  auto open = [](const fs::path& path) {
    return weights::Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  };
  const auto source = open(tiny_models() / "diffusion_models" / "packed_bf16.safetensors");
  const auto same = open(tiny.folder() / "output" / "same_00001_.safetensors");
  const auto changed = open(tiny.folder() / "output" / "changed_00001_.safetensors");
  int packed = 0, plain = 0;
  for (const auto& [name, stored] : source.tensors()) {
    CAPTURE(name);
    REQUIRE(same.find(name));
    REQUIRE(changed.find(name));
    CHECK(same.find(name)->encoding == stored.encoding);
    CHECK(at::equal(weights::read_dense(*same.find(name), at::kFloat),
                    weights::read_dense(stored, at::kFloat)));
    if (!stored.encoding) continue;
    ++(changed.find(name)->encoding ? packed : plain);
  }
  CHECK(packed > 0);
  CHECK(plain > 0);
}
