#include "distorch/models/catalog.h"
#include "distorch/models/flux/lora_names.h"
#include "distorch/models/flux/network.h"
#include "distorch/models/widened.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

struct TinyFlux {
  TinyFlux()
      : file(tiny_tensors({"flux_dev"})),
        family(detect_family(*file)),
        network(family->make_network()),
        source(network->manifest(), family->diffusion(), at::kFloat) {}

  /// The adapters of a LoRA file on the weights that they are for.
  void put(const weights::LoraFile& lora, double strength) {
    const auto& declared = network->manifest().weights();
    for (const auto& named : lora.adapters)
      for (std::size_t i = 0; i < declared.size(); ++i)
        if (declared[i].name == named.weight) {
          auto adapter = weights::read_adapter(named, at::kCPU);
          adapter.strength = strength;
          network->manifest().slot(i).adapters.push_back(std::move(adapter));
        }
  }

  TemporaryCheckpoint file;
  std::shared_ptr<const Family> family;
  std::unique_ptr<Network> network;
  TwiceSource source;
};

weights::LoraFile match(const weights::Checkpoint& file, TinyFlux& flux) {
  const auto& manifest = flux.network->manifest();
  return weights::match_lora(file, flux.family->lora_names(manifest), manifest);
}

std::vector<std::int64_t> shape_of_input(const TinyFlux& flux, const weights::LoraFile& lora) {
  std::map<std::string, std::vector<std::int64_t>> reshaped;
  for (const auto& adapter : lora.adapters)
    if (!adapter.reshape.empty()) reshaped[adapter.weight] = adapter.reshape;
  std::vector<std::int64_t> channels;
  for (const auto& spec : flux.network->inputs())
    if (spec.name == "concat") {
      auto extent = dynamic_cast<const Widened&>(*flux.family).with_shapes(spec, reshaped).shape[1];
      if (extent.of == Extent::Of::Number) channels.push_back(extent.value);
    }
  return channels;
}

}  // namespace

TEST_CASE("flux: LoRA files in every spelling give ComfyUI's weights") {
  Dump dump("flux_loras");
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / "flux_loras.json"));
  auto all = open_checkpoint(parity_dir() / "flux_loras.safetensors");
  for (const auto& one : json.at("cases")) {
    auto name = one.get<std::string>();
    CAPTURE(name);
    TinyFlux flux;
    auto lora = match(all.part(name + "/"), flux);
    CHECK(lora.unknown == std::vector<std::string>{});
    CHECK(lora.left_out == std::vector<std::string>{});
    flux.put(lora, json.at("strength").get<double>());
    Inputs inputs{{"x", dump["in/x"]},
                  {"timestep", dump["in/timestep"]},
                  {"context", dump["in/context"]},
                  {"vector", dump["in/y"]},
                  {"guidance", dump["in/guidance"]}};
    // A control LoRA makes room for a picture beside the latent.
    auto channels = shape_of_input(flux, lora);
    CHECK(channels.size() == (name == "control" ? 1u : 0u));
    if (name == "control") {
      CHECK(channels[0] == 16);
      inputs.set("concat", dump["in/concat"]);
    }
    CHECK(difference(flux.network->apply(inputs), dump["out/" + name]) < 1e-4);
  }
}

TEST_CASE("flux: a LoRA of another model is named") {
  TinyFlux flux;
  TemporaryCheckpoint file(
      {{"lora_unet_input_blocks_4_1_proj_in.lora_up.weight", at::ones({8, 2})},
       {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight", at::ones({2, 8})},
       {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight", at::ones({2, 65})},
       {"transformer.transformer_blocks.0.attn.to_q.lora_B.weight", at::ones({64, 2})}});
  auto lora = match(*file, flux);
  CHECK(lora.adapters.empty());
  CHECK(lora.unknown.size() == 2);
  REQUIRE(lora.left_out.size() == 1);
  CHECK(lora.left_out[0].find("double_blocks.0.img_attn.qkv.weight") != std::string::npos);
}
