#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "distorch/quant/fp8.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

// 8-bit weights through the nodes: files that have them, and UNETLoader's weight_dtype.
namespace {

using Tensors = std::map<std::string, at::Tensor>;

const std::string kUnet = "model.diffusion_model.";
const std::string kText = "cond_stage_model.transformer.text_model.";

/// Samples with the UNet of `file` (in diffusion_models/), prompts of tiny_sd1.
Json prompt_of(const std::string& file, const std::string& weight_dtype) {
  auto prompt = sampling_prompt();
  prompt["9"] = {{"class_type", "UNETLoader"},
                 {"inputs", {{"unet_name", file}, {"weight_dtype", weight_dtype}}}};
  prompt["5"]["inputs"]["model"] = {"9", 0};
  return prompt;
}

at::Tensor latent_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

/// A UNet's tensors changed one by one, in diffusion_models/NAME; the name.
std::string write_unet(const std::string& name, const std::function<void(Tensors&)>& change) {
  Tensors unet;
  for (const auto& [tensor, value] : tiny_tensors({"unet_sd1"}))
    if (tensor.starts_with(kUnet)) unet[tensor] = value;
  change(unet);
  auto folder = tiny_models() / "diffusion_models";
  fs::create_directories(folder);
  write_tensors(folder / name, unet);
  return name;
}

std::string plain() {
  return write_unet("plain.safetensors", [](Tensors&) {});
}

/// The same after every number was rounded to `dtype`.
std::string rounded(at::ScalarType dtype) {
  return write_unet("rounded.safetensors", [&](Tensors& tensors) {
    for (auto& [name, value] : tensors) value = value.to(dtype).to(at::kFloat);
  });
}

/// Matrices in 8 bits with a scale each, as ComfyUI's scaled files have them; `decoded`: what they
/// stand for.
std::string scaled(bool decoded) {
  return write_unet(decoded ? "decoded.safetensors" : "scaled.safetensors", [&](Tensors& tensors) {
    Tensors changed;
    for (auto& [name, value] : tensors) {
      if (value.dim() != 2 || !name.ends_with(".weight")) {
        changed[name] = value;
        continue;
      }
      auto scale = (value.abs().max() / 448).to(at::kFloat);
      auto bytes = (value / scale).to(at::kFloat8_e4m3fn);
      changed[name] = decoded ? bytes.to(at::kFloat) * scale : bytes;
      if (!decoded) changed[name.substr(0, name.size() - 6) + "scale_weight"] = scale.reshape({1});
    }
    if (!decoded) changed[kUnet + "scaled_fp8"] = at::zeros({2}).to(at::kFloat8_e4m3fn);
    tensors = std::move(changed);
  });
}

/// Of the diffusion model in node 9, as numbers of the dtype that it computes in.
std::int64_t decoded_bytes(const streaming::EngineOptions& options, const Json& prompt) {
  TinyApp tiny(options);
  auto model = tiny.value_of(prompt, {"9", 0}).as<nodes::Model>();
  const auto& weights = *model.loaded->weights;
  std::int64_t bytes = 0;
  for (std::size_t block = 0; block < weights.block_count(); ++block)
    bytes += weights.contents().converted_bytes(static_cast<int>(block));
  return bytes;
}

}  // namespace

TEST_CASE("UNETLoader: weight_dtype gives the picture of the rounded weights") {
  TinyApp tiny;
  auto whole = latent_of(tiny, prompt_of(plain(), "default"));
  for (auto [name, dtype] :
       {std::pair("fp8_e4m3fn", at::kFloat8_e4m3fn), std::pair("fp8_e5m2", at::kFloat8_e5m2)}) {
    CAPTURE(name);
    auto kept = latent_of(tiny, prompt_of(plain(), name));
    CHECK(at::equal(kept, latent_of(tiny, prompt_of(rounded(dtype), "default"))));
    CHECK_FALSE(at::equal(kept, whole));
  }
  // Where a device has no products of 8-bit numbers the fast kind casts too.
  CHECK(at::equal(latent_of(tiny, prompt_of(plain(), "fp8_e4m3fn_fast")),
                  latent_of(tiny, prompt_of(plain(), "fp8_e4m3fn"))));
}

TEST_CASE("scaled 8-bit files: the numbers they stand for, resident at the size of the file") {
  auto rig = small_rig(1, 512 << 20);
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  options.default_device = "sim:0";
  auto prompt = prompt_of(scaled(false), "default");
  // Room for the file, but not for what it stands for: that would be decoded once.
  options.budgets["sim:0"] = decoded_bytes(options, prompt);
  TinyApp tiny(options);
  auto wanted = latent_of(tiny, prompt_of(scaled(true), "default"));
  auto got = latent_of(tiny, prompt);
  CHECK((got - wanted).abs().max().item<double>() <= 1e-5 * wanted.abs().max().item<double>());
  auto model = tiny.value_of(prompt, {"9", 0}).as<nodes::Model>();
  const auto& weights = *model.loaded->weights;
  CHECK(weights.loaded());
  CHECK_FALSE(weights.rests_converted());
  // An allocation is rounded up to 512 bytes, a block's runs to 256.
  auto rounding = static_cast<std::int64_t>(weights.block_count()) * 4096;
  CHECK(weights.device_bytes("sim:0") <= weights.total_file_bytes() + rounding);
}

TEST_CASE(
    "scaled 8-bit files: diffusion models may multiply as the numbers lie, text encoders not") {
  auto tensors = tiny_tensors({"unet_sd1", "vae", "clip_l"});
  const std::string marker = R"({"format": "float8_e4m3fn"})";
  for (const auto& base : {kUnet + "time_embed.0.", kText + "encoder.layers.0.mlp.fc1."}) {
    REQUIRE(tensors.count(base + "weight"));
    auto& weight = tensors[base + "weight"];
    auto scale = weight.abs().max() / 448;
    weight = (weight / scale).to(at::kFloat8_e4m3fn);
    tensors[base + "weight_scale"] = scale;
    tensors[base + "comfy_quant"] =
        at::tensor(std::vector<std::uint8_t>(marker.begin(), marker.end()));
  }
  write_tensors(tiny_models() / "checkpoints" / "marked.safetensors", tensors);
  TinyApp tiny;
  auto prompt = sampling_prompt("marked.safetensors");
  auto encoding_of = [](const streaming::StreamedModel& model, const std::string& ending) {
    for (const auto& [name, stored] : model.checkpoint().tensors())
      if (name.ends_with(ending)) return stored.encoding;
    return static_cast<const quant::Encoding*>(nullptr);
  };
  auto model = tiny.value_of(prompt, {"1", 0}).as<nodes::Model>();
  const bool unet_multiplies =
      encoding_of(*model.loaded->weights, "time_embed.0.weight") == &quant::float8_e4m3fn();
  CHECK(unet_multiplies);
  auto text = tiny.value_of(prompt, {"1", 1}).as<nodes::Clip>();
  const auto& encoder = *text.loaded->encoders.at(0)->weights;
  const bool text_decodes =
      encoding_of(encoder, "layers.0.mlp.fc1.weight") == &quant::float8_e4m3fn_decoded();
  CHECK(text_decodes);
}
