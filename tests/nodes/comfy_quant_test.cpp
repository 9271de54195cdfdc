#include <doctest/doctest.h>

#include "tests/nodes/packed_files.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

// Quantised files of ComfyUI through the loaders: a UNet of its own, and a whole checkpoint.
namespace {

using Tensors = std::map<std::string, at::Tensor>;
using Make = std::function<quant::Packed(const at::Tensor&)>;

/// tiny_sd1 with the matrices of UNet and text encoder packed by `make`; `decoded`: what they stand
/// for. In checkpoints/NAME.
void write_checkpoint(const std::string& name, const Make& make, bool decoded) {
  Tensors changed;
  int packed_count = 0;
  for (const auto& [tensor, value] : tiny_tensors({"unet_sd1", "vae", "clip_l"})) {
    const bool layer = tensor.starts_with("model.diffusion_model.") ||
                       tensor.find(".layers.") != std::string::npos;
    if (!layer || !tensor.ends_with(".weight") || value.dim() != 2 || value.size(1) % 32 != 0) {
      changed[tensor] = value;
      continue;
    }
    auto packed = make(value);
    ++packed_count;
    if (decoded)
      changed[tensor] = quant::decode(packed, at::kFloat);
    else
      add_packed(changed, tensor, packed);
  }
  CHECK(packed_count > 20);
  write_tensors(tiny_models() / "checkpoints" / name, changed);
}

at::Tensor latent_of(TinyApp& tiny, const std::string& checkpoint) {
  auto prompt = sampling_prompt(checkpoint);
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

double apart(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got - wanted).abs().max() / wanted.abs().max()).item<double>();
}

}  // namespace

TEST_CASE("quantised checkpoints: formats that are decoded give the picture of their numbers") {
  const std::vector<std::pair<std::string, Make>> kinds = {{"nvfp4", quant::to_nvfp4},
                                                           {"mxfp8", quant::to_mxfp8}};
  for (const auto& [name, make] : kinds) {
    CAPTURE(name);
    write_checkpoint(name + ".safetensors", make, false);
    write_checkpoint(name + "_decoded.safetensors", make, true);
    TinyApp tiny;
    auto wanted = latent_of(tiny, name + "_decoded.safetensors");
    CHECK(apart(latent_of(tiny, name + ".safetensors"), wanted) < 1e-5);
    TinyApp there(simulated(small_rig(1, 512 << 20)));
    CHECK(apart(latent_of(there, name + ".safetensors"), wanted) < 1e-4);
  }
}

TEST_CASE(
    "quantised checkpoints: whole numbers are near the numbers they were made of, on any device") {
  TinyApp tiny;
  auto plain = latent_of(tiny, "tiny_sd1.safetensors");
  for (int rotated : {0, 16}) {
    CAPTURE(rotated);
    const auto name = "int8_" + std::to_string(rotated) + ".safetensors";
    write_checkpoint(
        name, [&](const at::Tensor& w) { return quant::to_int8(w, true, rotated); }, false);
    auto here = latent_of(tiny, name);
    CHECK(apart(here, plain) < 0.1);
    CHECK(apart(here, plain) > 1e-5);
    // Other layers differ there in their last bits, by which some inputs are rounded the other way.
    TinyApp there(simulated(small_rig(1, 512 << 20)));
    CHECK(apart(latent_of(there, name), here) < 0.02);
  }
}
