#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

// UNets in NF4 as bitsandbytes saves them, through the nodes: the picture of the numbers that they
// stand for.
namespace {

const std::string kUnet = "model.diffusion_model.";
constexpr std::int64_t kBlock = 64;

using Tensors = std::map<std::string, at::Tensor>;

at::Tensor table() {
  return at::tensor({-1.0f, -0.6961928f, -0.5250731f, -0.39491749f, -0.28444138f, -0.18477343f,
                     -0.09105004f, 0.0f, 0.0795803f, 0.1609302f, 0.2461123f, 0.33791524f,
                     0.44070983f, 0.562617f, 0.72295684f, 1.0f});
}

at::Tensor text(const std::string& json) {
  auto bytes = at::empty({static_cast<std::int64_t>(json.size())}, at::kByte);
  std::copy(json.begin(), json.end(), bytes.mutable_data_ptr<std::uint8_t>());
  return bytes;
}

/// Adds a matrix in NF4 to `packed`, and what that stands for to `decoded`.
void add(const std::string& name, const at::Tensor& value, Tensors& packed, Tensors& decoded) {
  auto blocks = value.to(at::kFloat).reshape({-1, kBlock});
  auto absmax = blocks.abs().amax({1});
  auto code = (blocks / absmax.unsqueeze(1).clamp_min(1e-12)).unsqueeze(-1).sub(table()).abs();
  auto nearest = code.argmin(-1);
  auto flat = nearest.flatten();
  auto bytes = flat.view({-1, 2}).select(1, 0) * 16 + flat.view({-1, 2}).select(1, 1);
  packed[name] = bytes.to(at::kByte).view({-1, 1}).contiguous();
  packed[name + ".absmax"] = absmax;
  packed[name + ".quant_map"] = table();
  packed[name + ".quant_state.bitsandbytes__nf4"] =
      text(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [)" +
           std::to_string(value.size(0)) + ", " + std::to_string(value.size(1)) + "]}");
  decoded[name] = (table().index_select(0, flat).view({-1, kBlock}) * absmax.unsqueeze(1))
                      .view(value.sizes())
                      .contiguous();
}

/// diffusion_models/nf4.safetensors and nf4_decoded.safetensors; how many weights are packed.
int write_unets() {
  Tensors packed, decoded;
  int count = 0;
  for (const auto& [name, value] : tiny_tensors({"unet_sd1"})) {
    if (!name.starts_with(kUnet)) continue;
    if (value.dim() == 2 && name.ends_with(".weight") && value.numel() % kBlock == 0) {
      add(name, value, packed, decoded);
      ++count;
    } else {
      packed[name] = decoded[name] = value;
    }
  }
  auto folder = tiny_models() / "diffusion_models";
  fs::create_directories(folder);
  write_tensors(folder / "nf4.safetensors", packed);
  write_tensors(folder / "nf4_decoded.safetensors", decoded);
  return count;
}

at::Tensor latent_of(TinyApp& tiny, const std::string& loader, const std::string& file) {
  auto prompt = sampling_prompt();
  prompt["9"] = {{"class_type", loader}, {"inputs", {{"unet_name", file}}}};
  if (loader == "UNETLoader") prompt["9"]["inputs"]["weight_dtype"] = "default";
  if (loader == "UNETLoaderNF4DisTorch2MultiGPU") {
    prompt["9"]["inputs"]["compute_device"] = "sim:0";
    prompt["9"]["inputs"]["expert_mode_allocations"] = "sim:0,40%;cpu,60%";
    prompt["9"]["inputs"]["virtual_vram_gb"] = 0.0;
  }
  prompt["5"]["inputs"]["model"] = {"9", 0};
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

}  // namespace

TEST_CASE(
    "NF4 of bitsandbytes: the picture of its numbers, by every loader, resident and streamed") {
  CHECK(write_unets() > 20);
  {
    TinyApp tiny;
    const auto wanted = latent_of(tiny, "UNETLoader", "nf4_decoded.safetensors");
    CHECK(at::equal(latent_of(tiny, "UNETLoader", "nf4.safetensors"), wanted));
    CHECK(at::equal(latent_of(tiny, "UNETLoaderNF4", "nf4.safetensors"), wanted));
  }
  auto rig = small_rig(1, 512 << 20);
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  options.default_device = "sim:0";
  TinyApp tiny(options);
  const auto wanted = latent_of(tiny, "UNETLoader", "nf4_decoded.safetensors");
  CHECK(at::equal(latent_of(tiny, "UNETLoaderNF4DisTorch2MultiGPU", "nf4.safetensors"), wanted));
}

TEST_CASE("NF4 of bitsandbytes: a saved model has its numbers in bf16") {
  write_unets();
  TinyApp tiny({}, "save_nf4");
  tiny.run_well(
      {{"1", {{"class_type", "UNETLoaderNF4"}, {"inputs", {{"unet_name", "nf4.safetensors"}}}}},
       {"2",
        {{"class_type", "ModelSave"},
         {"inputs", {{"model", {"1", 0}}, {"filename_prefix", "nf4"}}}}}});
  auto open = [](const fs::path& path) {
    return weights::Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  };
  const auto saved = open(tiny.folder() / "output" / "nf4_00001_.safetensors");
  const auto packed = open(tiny_models() / "diffusion_models" / "nf4.safetensors");
  CHECK(saved.tensors().size() == packed.tensors().size());
  for (const auto& [name, stored] : packed.tensors()) {
    CAPTURE(name);
    const auto* found = saved.find(name);
    REQUIRE(found);
    CHECK(found->encoding == nullptr);
    CHECK((found->dtype == (stored.encoding ? formats::DType::BF16 : stored.dtype)));
    const auto type = weights::to_torch(*found);
    CHECK(at::equal(weights::read_dense(*found, type), weights::read_dense(stored, type)));
  }
}
