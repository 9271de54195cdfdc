// HunyuanVideo 1.5 against ComfyUI: its network, and what conditionings become.
#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

constexpr const char* kDump = "hunyuan_video15";

/// What a case of the parity script calls the network with.
Inputs inputs_of(const std::string& name, const nlohmann::json& one) {
  auto number = [&](const char* key) { return one.at(key).get<std::int64_t>(); };
  auto batch = number("batch");
  Inputs inputs;
  inputs.set("x", tiny_weight(name + " x", {batch, 32, number("frames"), 3, 4}));
  inputs.set("concat", tiny_weight(name + " concat", {batch, 33, number("frames"), 3, 4}));
  inputs.set("timestep", at::tensor({900.0f, 350.0f}).narrow(0, 0, batch));
  inputs.set("context", tiny_weight(name + " context", {batch, number("tokens"), 24}));
  if (one.contains("glyphs"))
    inputs.set("glyphs", tiny_weight(name + " glyphs", {batch, number("glyphs"), 20}));
  if (one.contains("vision"))
    inputs.set("vision", tiny_weight(name + " vision", {batch, number("vision"), 16}));
  return inputs;
}

struct Loaded {
  Loaded()
      : file(tiny_tensors({kDump})),
        family(detect_family(*file)),
        network(family->make_network()),
        source(network->manifest(), family->diffusion(), at::kFloat) {}
  TemporaryCheckpoint file;
  std::shared_ptr<const Family> family;
  std::unique_ptr<Network> network;
  TwiceSource source;
};

InputSpec spec_of(const Network& network, const std::string& name) {
  for (const auto& spec : network.inputs())
    if (spec.name == name) return spec;
  FAIL("no input " << name);
  return {};
}

}  // namespace

TEST_CASE("hunyuan video 1.5: text, words that are shown and a picture as ComfyUI") {
  Loaded l;
  CHECK(l.family->name() == "HunyuanVideo 1.5");
  check_complete(l.network->manifest(), l.family->diffusion(), "diffusion model");
  CHECK(l.network->manifest().weights().size() == l.family->diffusion().tensors().size());
  Dump dump(kDump);
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / "hunyuan_video15.json"));
  for (const auto& [key, one] : json.at("cases").items()) {
    const std::string name = key;
    CAPTURE(name);
    CHECK(difference(l.network->apply(inputs_of(name, one)), dump["network/" + name]) < 1e-4);
  }
  // A mask is of the text alone, whatever stands in front of it.
  auto words = json["cases"]["vision"];
  words.erase("vision");
  auto inputs = inputs_of("vision", words);
  inputs.set("attention_mask", at::tensor({1.0f, 1.0f, 1.0f, 0.0f}).unsqueeze(0));
  CHECK(difference(l.network->apply(inputs), dump["network/masked"]) < 1e-4);
  inputs = inputs_of("all", json["cases"]["all"]);
  auto free = l.network->apply(inputs);
  inputs.set("attention_mask", at::ones({2, 4}));
  CHECK(difference(l.network->apply(inputs), free) < 1e-5);
  inputs.set("vision", at::zeros({2, 3, 17}));
  CHECK_THROWS_WITH_AS(l.network->apply(inputs), doctest::Contains("what a picture encoder saw"),
                       Error);
}

TEST_CASE("hunyuan video 1.5: frames that are given as ComfyUI puts them beside the latent") {
  Loaded l;
  Dump dump(kDump);
  auto spec = spec_of(*l.network, "concat");
  sampling::EncodeContext context{.noise = at::zeros({2, 32, 3, 4, 6})};
  sampling::ConditioningItem item;
  auto got = [&] {
    auto value = l.family->encode(spec, item, context).value;
    REQUIRE(value.sizes() == at::IntArrayRef({2, 33, 3, 4, 6}));
    CHECK(at::equal(value[0], value[1]));
    return value.narrow(0, 0, 1).slice(1, 0, 33, 3);
  };
  CHECK(at::equal(got(), dump["concat/nothing"]));
  auto mask = at::ones({1, 1, 3, 4, 6});
  mask.select(2, 0).zero_();
  item.tensors["concat_latent_image"] = tiny_weight("start", {1, 32, 3, 4, 6});
  item.tensors["concat_mask"] = mask;
  CHECK(difference(got(), dump["concat/start"]) < 1e-5);
  mask = at::ones({1, 1, 2, 6, 10});
  mask.narrow(4, 0, 5).zero_();
  item.tensors["concat_latent_image"] = tiny_weight("other size", {1, 32, 3, 6, 10});
  item.tensors["concat_mask"] = mask;
  CHECK(difference(got(), dump["concat/other size"]) < 1e-5);
  // The same shape is known without data.
  sampling::EncodeContext blank{.noise = at::empty({2, 32, 3, 4, 6}, at::kMeta)};
  CHECK(l.family->encode(spec, item, blank).value.sizes() == at::IntArrayRef({2, 33, 3, 4, 6}));
  item.tensors["concat_latent_image"] = at::ones({1, 16, 1, 4, 6});
  CHECK_THROWS_WITH_AS(l.family->encode(spec, item, context),
                       doctest::Contains("VAE of HunyuanVideo 1.5"), Error);
}

TEST_CASE("hunyuan video 1.5: what else a conditioning is encoded to, and how it was trained") {
  Loaded l;
  sampling::EncodeContext context{.noise = at::zeros({2, 32, 3, 4, 6})};
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({1, 5, 24});
  for (const char* name : {"glyphs", "vision"}) {
    CAPTURE(name);
    CHECK_FALSE(l.family->encode(spec_of(*l.network, name), item, context).defined());
  }
  item.tensors["conditioning_byt5small"] = at::randn({1, 3, 20});
  item.tensors["clip_vision_last"] = at::randn({1, 9, 16});
  CHECK(l.family->encode(spec_of(*l.network, "glyphs"), item, context).value.sizes() ==
        at::IntArrayRef({2, 3, 20}));
  CHECK(l.family->encode(spec_of(*l.network, "vision"), item, context).value.sizes() ==
        at::IntArrayRef({2, 9, 16}));
  CHECK(l.family->sampling()->percent_to_sigma(0.5) == doctest::Approx(7.0 / 8));
  CHECK(l.family->latent().channels == 32);
  CHECK(l.family->latent().downscale == 16);
  CHECK(l.family->latent().rgb_factors.size() == 32);
  CHECK(l.family->latent().into_network(at::ones({1, 32, 1, 1, 1})).max().item<float>() ==
        doctest::Approx(1.03682));
  CHECK(l.family->keeps_given_part_clean());
}

TEST_CASE("hunyuan video 1.5: full sizes are read off shapes, and what is not known is refused") {
  hunyuan_video::Config published;
  published.hidden = 2048;
  published.mlp = 8192;
  published.depth = 54;
  published.single_depth = 0;
  published.in_channels = 65;
  published.out_channels = 32;
  published.text_width = 3584;
  published.vector_width = 0;
  published.guidance = false;
  published.patch = 1;
  published.vision_width = 1152;
  published.glyph_width = 1472;
  published.glyph_hidden = published.glyph_out = 2048;
  published.marked_kinds = true;
  hunyuan_video::Transformer network(published);
  auto shapes = shapes_only(network.manifest());
  auto config = hunyuan_video::config_of(hunyuan_video::with_our_names(shapes));
  CHECK(config.depth == 54);
  CHECK(config.single_depth == 0);
  CHECK(config.heads() == 16);
  CHECK(config.patch == 1);
  CHECK(config.glyph_out == 2048);
  CHECK(network.manifest().blocks().size() == 1 + 2 + 1 + 4 * 54 + 1);
  CHECK(parameters(network.manifest()) == 8'326'608'160);
  auto distilled = shapes;
  distilled.add("time_r_in.in_layer.weight", {.dtype = formats::DType::F16, .shape = {2048, 256}});
  CHECK_THROWS_WITH_AS(hunyuan_video::config_of(hunyuan_video::with_our_names(distilled)),
                       doctest::Contains("time_r_in"), Error);
  // The form for higher resolution takes two latents beside its own.
  shapes.add("img_in.proj.weight", {.dtype = formats::DType::F16, .shape = {2048, 98, 1, 1, 1}});
  CHECK_THROWS_WITH_AS(hunyuan_video::config_of(hunyuan_video::with_our_names(shapes)),
                       doctest::Contains("takes 98 channels and gives 32"), Error);
}
