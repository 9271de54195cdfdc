#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "distorch/models/whole_patches.h"
#include "tests/models/given_modulations.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

Inputs inputs_of(const Dump& dump, const std::string& one) {
  Inputs inputs;
  for (const char* name : {"x", "timestep", "context", "vector", "guidance", "concat",
                           "attention_mask", "given_frame", "reference"})
    if (dump.has(one + "/" + name)) inputs.set(name, dump[one + "/" + name]);
  return inputs;
}

std::map<std::string, Tensor> below(const std::string& prefix,
                                    const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : tensors) result[prefix + name] = tensor;
  return result;
}

/// Every case of a dump; the family that was detected.
std::shared_ptr<const Family> check_parity(const std::string& name,
                                           const std::string& prefix = "") {
  CAPTURE(name);
  Dump dump(name);
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json")));
  TemporaryCheckpoint file(below(prefix, tiny_tensors({name})));
  auto family = detect_family(*file);
  CHECK(family->name() == "HunyuanVideo");
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "diffusion model");
  CHECK(network->manifest().weights().size() == family->diffusion().tensors().size());
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  for (const auto& one : json.at("cases").get<std::vector<std::string>>()) {
    CAPTURE(one);
    const auto inputs = inputs_of(dump, one);
    const auto out = network->apply(inputs);
    CHECK(difference(out, dump[one + "/out"]) < 1e-4);
    CHECK(check_given(*network, source, inputs, out) == !inputs.has("given_frame"));
  }
  return family;
}

InputSpec spec_of(const Network& network, const std::string& name) {
  for (const auto& spec : network.inputs())
    if (spec.name == name) return spec;
  FAIL("no input " << name);
  return {};
}

}  // namespace

TEST_CASE("hunyuan video: from texts and pictures as ComfyUI and diffusers, in all spellings") {
  check_parity("hunyuan_video");
  check_parity("hunyuan_video_i2v", "model.diffusion_model.");
  check_parity("skyreels_i2v", "model.model.");
  check_parity("hunyuan_video_diffusers");
}

TEST_CASE("hunyuan video: sampling and latents as it was trained") {
  auto family = check_parity("skyreels_i2v");
  CHECK(family->sampling()->is_flow());
  CHECK(family->sampling()->percent_to_sigma(0.5) == doctest::Approx(7.0 / 8));
  CHECK(family->sampling()->timestep(0.25f) == doctest::Approx(250));
  CHECK(family->latent().channels == 16);
  CHECK(family->latent().dimensions == 3);
  CHECK(family->latent().into_network(at::ones({1, 16, 1, 1, 1})).max().item<float>() ==
        doctest::Approx(0.476986));
  CHECK(family->latent().rgb_factors.size() == 16);
  CHECK(family->keeps_given_part_clean());
}

TEST_CASE("hunyuan video: what a conditioning is encoded to") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  sampling::EncodeContext context{.noise = at::zeros({2, 16, 3, 4, 6})};
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({1, 5, 24});
  auto encoded = [&](const std::string& name) {
    return family->encode(spec_of(*network, name), item, context);
  };
  CHECK(encoded("context").value.size(0) == 2);
  CHECK(encoded("guidance").value.item<float>() == 6.0f);
  item.numbers["guidance"] = 2;
  CHECK(encoded("guidance").value.item<float>() == 2.0f);
  CHECK_FALSE(encoded("given_frame").defined());
  item.numbers["guiding_frame_index"] = 0;
  CHECK(encoded("given_frame").value.item<float>() == 0.0f);
  CHECK_FALSE(encoded("reference").defined());
  item.tensors["ref_latent"] = at::ones({1, 16, 1, 2, 2});
  CHECK(encoded("reference").value.max().item<float>() == doctest::Approx(0.476986));
  item.tensors["attention_mask"] = at::ones({1, 5});
  CHECK(encoded("attention_mask").value.sizes() == at::IntArrayRef({2, 5}));
}

TEST_CASE("hunyuan video: frames beside the latent, and which of them are given") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video_i2v"})),
      sky_file(tiny_tensors({"skyreels_i2v"}));
  auto family = detect_family(*file), sky = detect_family(*sky_file);
  auto spec = spec_of(*family->make_network(), "concat");
  sampling::EncodeContext context{.noise = at::zeros({2, 16, 3, 4, 6})};
  sampling::ConditioningItem item;
  // Nothing is given: zeros, and a mask that says so.
  CHECK(family->encode(spec, item, context).value.abs().max().item<float>() == 0.0f);
  item.tensors["concat_latent_image"] = at::ones({1, 16, 1, 4, 6});
  auto mask = at::ones({1, 1, 3, 4, 6});
  mask.select(2, 0).zero_();
  item.tensors["concat_mask"] = mask;
  auto value = family->encode(spec, item, context).value;
  CHECK(value.sizes() == at::IntArrayRef({2, 17, 3, 4, 6}));
  CHECK(value[1][15][0][2][2].item<float>() == doctest::Approx(0.476986));
  CHECK(value.narrow(2, 1, 2).abs().max().item<float>() == 0.0f);
  CHECK(value[0][16][0].min().item<float>() == 1.0f);
  // The same shape is known without data.
  sampling::EncodeContext blank{.noise = at::empty({2, 16, 3, 4, 6}, at::kMeta)};
  CHECK(family->encode(spec, item, blank).value.sizes() == value.sizes());
  auto beside = spec_of(*sky->make_network(), "concat");
  CHECK(sky->encode(beside, item, context).value.sizes() == at::IntArrayRef({2, 16, 3, 4, 6}));
  item.tensors["concat_latent_image"] = at::ones({1, 4, 1, 4, 6});
  CHECK_THROWS_WITH_AS(family->encode(spec, item, context),
                       doctest::Contains("VAE of HunyuanVideo"), Error);
}

TEST_CASE("hunyuan video: LoRA files by Tencent's names and diffusers'") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  auto names = family->lora_names(network->manifest());
  const std::string qkv = "double_blocks.1.img_attn.qkv.weight";
  for (const char* name :
       {"diffusion_model.double_blocks.1.img_attn_qkv", "transformer.double_blocks.1.img_attn_qkv",
        "diffusion_model.double_blocks.1.img_attn.qkv", "lora_unet_double_blocks_1_img_attn_qkv"}) {
    CAPTURE(name);
    REQUIRE(names.count(name) == 1);
    CHECK(names.at(name).weight == qkv);
  }
  const auto& key = names.at("transformer.transformer_blocks.1.attn.to_k");
  CHECK(key.weight == qkv);
  CHECK(key.first_row == 64);
  CHECK(names.at("transformer.single_blocks.0.modulation.linear").weight ==
        "single_blocks.0.modulation.lin.weight");
  CHECK(names.at("transformer.context_embedder.token_refiner.refiner_blocks.1.ff.net.2").weight ==
        "txt_in.individual_token_refiner.blocks.1.mlp.2.weight");
}

TEST_CASE(
    "hunyuan video: blocks run in the order in which they are declared, double ones in four "
    "parts") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  network->apply(inputs_of(Dump("hunyuan_video"), "main"));
  CHECK(source.in_order());
  const auto& blocks = network->manifest().blocks();
  const auto first = std::find(blocks.begin(), blocks.end(), "double_blocks.0");
  REQUIRE(first != blocks.end());
  REQUIRE(first != blocks.begin());
  CHECK(*(first - 2) == "double_blocks.0.img_modulation");
  CHECK(*(first - 1) == "double_blocks.0.txt_modulation");
  CHECK(*(first + 1) == "double_blocks.0.mlp");
}

TEST_CASE("hunyuan video: blocks that are left out, and inputs that do not fit") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  auto inputs = inputs_of(Dump("hunyuan_video"), "main");
  Patches patches;
  patches.skipped = {"double_blocks.1", "single_blocks.0", "single_blocks.1"};
  auto blocks = network->manifest().blocks().size();
  CHECK(network->apply(inputs, patches).sizes() == inputs["x"].sizes());
  CHECK(source.runs.size() == blocks - 8);
  inputs.set("context", at::zeros({2, 5, 25}));
  CHECK_THROWS_WITH_AS(network->apply(inputs), doctest::Contains("text conditioning"), Error);
}

TEST_CASE("hunyuan video: sides that no patch divides") {
  TemporaryCheckpoint file(tiny_tensors({"hunyuan_video"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  auto inputs = inputs_of(Dump("hunyuan_video"), "given");
  inputs.set("x", at::randn({1, 16, 2, 3, 5}));
  const auto got = network->apply(inputs);
  REQUIRE(got.sizes() == at::IntArrayRef({1, 16, 2, 3, 5}));
  // What a patch lacks is repeated from the other side, and is not there again.
  inputs.set("x", whole_patches(inputs["x"], 2));
  CHECK(difference(got, network->apply(inputs).narrow(3, 0, 3).narrow(4, 0, 5)) < 1e-6);
}

TEST_CASE("hunyuan video: full sizes are read off shapes, and relatives are left alone") {
  hunyuan_video::Config published;
  hunyuan_video::Transformer network(published);
  CHECK(parameters(network.manifest()) == 12'821'012'544);  // as published: 13B
  auto shapes = shapes_only(network.manifest());
  auto config = hunyuan_video::config_of(shapes);
  CHECK(config.depth == 20);
  CHECK(config.single_depth == 40);
  CHECK(config.heads() == 24);
  CHECK((config.blocks().axes == std::vector<std::int64_t>{16, 56, 56}));
  CHECK(network.manifest().blocks().size() == 4 * 20 + 2 * 40 + 2 + 2);
  CHECK_FALSE(hunyuan_video::with_our_names(shapes).empty());
  // HunyuanImage looks at a second text.
  shapes.add("byt5_in.fc1.weight", {.dtype = formats::DType::F16, .shape = {2048, 1472}});
  CHECK(hunyuan_video::with_our_names(shapes).empty());
}
