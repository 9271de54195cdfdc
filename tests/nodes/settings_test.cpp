#include "distorch/nodes/settings.h"

#include <doctest/doctest.h>

#include <sstream>

using namespace distorch;
using formats::DType;
using nodes::Settings;

namespace {

const device::DeviceInfo kPlainCpu{.name = "cpu", .kind = "cpu"};
const device::DeviceInfo kFastCpu{.name = "cpu", .kind = "cpu", .fast_bf16 = true};
const device::DeviceInfo kGpu{
    .name = "cuda:0", .kind = "cuda", .accelerator = true, .fast_bf16 = true};

const std::vector<DType> kStored = {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3};

Settings with(const std::string& options) {
  Settings settings;
  std::istringstream stream(options);
  for (std::string option; stream >> option;) {
    if (option == "--force-fp32") settings.force_fp32 = true;
    if (option == "--force-fp16") settings.force_fp16 = true;
    auto dtype = option.starts_with("--fp32-")   ? at::kFloat
                 : option.starts_with("--bf16-") ? at::kBFloat16
                                                 : at::kHalf;
    if (option.ends_with("-unet")) settings.unet_dtype = dtype;
    if (option.ends_with("-vae")) settings.vae_dtype = dtype;
    if (option.ends_with("-text-enc")) settings.text_dtype = dtype;
  }
  return settings;
}

std::string short_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "f32" : dtype == at::kHalf ? "f16" : "bf16";
}

/// What a device computes a UNet in, for files that are mostly F32, F16, BF16 and F8_E4M3.
std::string unet_row(const std::string& options, const device::DeviceInfo& device) {
  std::string row;
  for (auto stored : kStored)
    row += (row.empty() ? "" : " ") + short_name(unet_dtype(with(options), device, stored));
  return row;
}

}  // namespace

TEST_CASE("dtype of a UNet: stored dtype x device x options, the whole table") {
  struct Row {
    std::string options, plain_cpu, fast_cpu, gpu;
  };
  const Row rows[] = {
      {"", "f32 f32 f32 f32", "bf16 bf16 bf16 bf16", "bf16 f16 bf16 bf16"},
      {"--force-fp32", "f32 f32 f32 f32", "f32 f32 f32 f32", "f32 f32 f32 f32"},
      {"--force-fp16", "f32 f32 f32 f32", "bf16 bf16 bf16 bf16", "f16 f16 f16 f16"},
      {"--fp32-unet", "f32 f32 f32 f32", "f32 f32 f32 f32", "f32 f32 f32 f32"},
      {"--bf16-unet", "bf16 bf16 bf16 bf16", "bf16 bf16 bf16 bf16", "bf16 bf16 bf16 bf16"},
      {"--fp16-unet", "f32 f32 f32 f32", "bf16 bf16 bf16 bf16", "f16 f16 f16 f16"},
      {"--fp32-unet --force-fp16", "f32 f32 f32 f32", "f32 f32 f32 f32", "f32 f32 f32 f32"},
      {"--bf16-unet --force-fp32", "bf16 bf16 bf16 bf16", "bf16 bf16 bf16 bf16",
       "bf16 bf16 bf16 bf16"},
      // Options of other parts say nothing about the UNet.
      {"--fp32-vae --fp32-text-enc", "f32 f32 f32 f32", "bf16 bf16 bf16 bf16",
       "bf16 f16 bf16 bf16"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.options);
    CHECK(unet_row(row.options, kPlainCpu) == row.plain_cpu);
    CHECK(unet_row(row.options, kFastCpu) == row.fast_cpu);
    CHECK(unet_row(row.options, kGpu) == row.gpu);
  }
}

TEST_CASE("dtype of a UNet: a simulated device is as its host, but keeps float32") {
  const device::DeviceInfo simulated{.name = "sim:0", .kind = "sim", .accelerator = true};
  auto host = device::find_device("cpu");
  for (const char* options : {"", "--force-fp32", "--force-fp16", "--bf16-unet"})
    for (auto stored : kStored) {
      bool kept = stored == DType::F32 && !*options;
      CHECK(short_name(unet_dtype(with(options), simulated, stored)) ==
            (kept ? "f32" : short_name(unet_dtype(with(options), host, stored))));
    }
}

TEST_CASE("dtypes of a VAE and of text encoders: device x options") {
  struct Row {
    std::string options, vae, text;  // on a plain CPU, a fast one and a GPU
  };
  const Row rows[] = {
      {"", "f32 bf16 bf16", "f32 f32 f32"},
      {"--force-fp32", "f32 f32 f32", "f32 f32 f32"},
      {"--force-fp16", "f32 bf16 bf16", "f32 f32 f32"},
      {"--fp32-vae --force-fp16", "f32 f32 f32", "f32 f32 f32"},
      {"--bf16-vae", "bf16 bf16 bf16", "f32 f32 f32"},
      {"--fp16-vae", "f32 bf16 f16", "f32 f32 f32"},
      {"--bf16-text-enc", "f32 bf16 bf16", "bf16 bf16 bf16"},
      {"--fp16-text-enc", "f32 bf16 bf16", "f32 bf16 f16"},
      {"--fp16-unet", "f32 bf16 bf16", "f32 f32 f32"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.options);
    std::string vae, text;
    for (const auto* device : {&kPlainCpu, &kFastCpu, &kGpu}) {
      vae += (vae.empty() ? "" : " ") + short_name(vae_dtype(with(row.options), *device));
      text += (text.empty() ? "" : " ") + short_name(text_dtype(with(row.options), *device));
    }
    CHECK(vae == row.vae);
    CHECK(text == row.text);
  }
}
