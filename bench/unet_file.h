#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "bench/bench.h"
#include "distorch/formats/safetensors.h"
#include "distorch/models/sd/unet.h"

/// Files with the shapes of real models and made-up weights.
namespace bench {

using namespace distorch;

/// The shapes of Stable Diffusion 1.5 (and of 2.1 with `version` 2).
inline models::sd::UNetConfig sd_config(int version = 1) {
  models::sd::UNetConfig config;
  config.channels = {320, 640, 1280, 1280};
  config.res_blocks = {2, 2, 2, 2};
  config.depth_in = {1, 1, 1, 1, 1, 1, 0, 0};
  config.depth_out = {0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  if (version == 2) {
    config.context_width = 1024;
    config.linear_projection = true;
  }
  return config;
}

/// The shapes of SDXL base.
inline models::sd::UNetConfig sdxl_config() {
  models::sd::UNetConfig config;
  config.channels = {320, 640, 1280};
  config.res_blocks = {2, 2, 2};
  config.depth_in = {0, 0, 2, 2, 10, 10};
  config.depth_out = {10, 10, 10, 2, 2, 2, 0, 0, 0};
  config.depth_middle = 10;
  config.context_width = 2048;
  config.vector_width = 2816;
  config.linear_projection = true;
  return config;
}

/// Random numbers in the scale of trained weights: matrices and convolutions N(0, 0.02), norms 1,
/// biases 0. All tensors show the same numbers, so that writing needs little memory.
inline void write_weights(const std::filesystem::path& path, const weights::Manifest& manifest,
                          at::ScalarType dtype) {
  std::int64_t largest = 0, widest = 0;
  for (const auto& weight : manifest.weights()) {
    auto& size = weight.shape.size() > 1 ? largest : widest;
    size = std::max(size, c10::multiply_integers(weight.shape));
  }
  auto numbers = (at::randn({std::max<std::int64_t>(1, largest)}) * 0.02).to(dtype);
  auto ones = at::ones({std::max<std::int64_t>(1, widest)}, dtype), zeros = at::zeros_like(ones);
  auto type = dtype == at::kHalf       ? formats::DType::F16
              : dtype == at::kBFloat16 ? formats::DType::BF16
                                       : formats::DType::F32;
  std::vector<formats::TensorToWrite> list;
  for (const auto& weight : manifest.weights()) {
    bool bias = weight.name.size() > 5 && weight.name.ends_with(".bias");
    const auto& source = weight.shape.size() > 1 ? numbers : bias ? zeros : ones;
    auto bytes =
        static_cast<std::size_t>(c10::multiply_integers(weight.shape)) * source.element_size();
    list.push_back({weight.name,
                    type,
                    weight.shape,
                    {static_cast<const std::byte*>(source.const_data_ptr()), bytes}});
  }
  formats::write_safetensors(path, list);
}

/// A UNet's file, made if it is not there: 1.7 GB of SD 1.5, 5.1 GB of SDXL in fp16.
inline void make_unet_file(const std::filesystem::path& path, at::ScalarType dtype,
                           const models::sd::UNetConfig& config = sd_config()) {
  if (std::filesystem::exists(path)) return;
  models::sd::UNet unet(config);
  write_weights(path, unet.manifest(), dtype);
}

/// A file that has everything but the weights: a true header, then a hole of the right size. Takes
/// no space.
inline void write_hollow(const std::filesystem::path& path, const weights::Manifest& manifest,
                         const std::string& type, int element_bytes) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::int64_t offset = 0;
  for (const auto& weight : manifest.weights()) {
    auto bytes = c10::multiply_integers(weight.shape) * element_bytes;
    header[weight.name] = {
        {"dtype", type}, {"shape", weight.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::uint64_t length = text.size();
  {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << text;
  }
  std::filesystem::resize_file(path, 8 + length + static_cast<std::uint64_t>(offset));
}

}  // namespace bench
