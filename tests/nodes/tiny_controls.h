#pragma once
#include <mutex>

#include "tests/nodes/tiny_app.h"

/// ControlNets and T2I-adapters for the tiny models, as files in their model folder.
namespace distorch::test {

/// Writes them once: the files that tests/parity/make_control_nodes.py and
/// make_nodes_sdxl_control.py name.
inline void write_tiny_controls() {
  static const bool written = [] {
    auto folder = tiny_models() / "controlnet";
    fs::create_directories(folder);
    for (std::string name : {"control_sd1", "control_sd2", "adapter_sd1", "adapter_light",
                             "control_sdxl", "adapter_sdxl"})
      write_tensors(folder / (name + ".safetensors"), tiny_tensors({name}));
    fs::copy(folder / "control_sd1.safetensors", folder / "control_sd1_shuffle.safetensors");
    auto low_rank = tiny_tensors({"control_low_rank"});
    write_tensors(folder / "control_low_rank.safetensors", low_rank);
    auto differences = tiny_tensors({"control_sd1"});
    for (auto& [name, tensor] : differences) tensor.mul_(0.1);
    differences["difference"] = at::zeros({1});
    write_tensors(folder / "control_difference.safetensors", differences);
    return true;
  }();
  (void)written;
}

/// checkpoints/tiny_sdxl_inpaint.safetensors: tiny_sdxl with a UNet that takes the mask and the
/// kept picture, too. Once.
inline void write_tiny_inpaint() {
  static const bool written = [] {
    auto tensors = tiny_tensors({"unet_sdxl", "vae", "text_sdxl"});
    const std::string first = "model.diffusion_model.input_blocks.0.0.weight";
    auto shape = tensors.at(first).sizes().vec();
    shape[1] = 9;
    tensors[first] = tiny_weight(first, shape);
    write_tensors(tiny_models() / "checkpoints" / "tiny_sdxl_inpaint.safetensors", tensors);
    return true;
  }();
  (void)written;
}

}  // namespace distorch::test
