#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/ltxv/transformer.h"
#include "distorch/models/text_recipes.h"
#include "tests/models/text_tiny.h"
#include "tests/models/with_config.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

Inputs inputs_of(const Dump& dump, const std::string& one) {
  Inputs inputs;
  for (const char* name :
       {"x", "timestep", "context", "attention_mask", "denoise_mask", "keyframes"})
    if (dump.has(one + "/" + name)) inputs.set(name, dump[one + "/" + name]);
  if (dump.has(one + "/frame_rate"))
    inputs.set_number("frame_rate", dump[one + "/frame_rate"].item<double>());
  return inputs;
}

/// The model of a dump, below a prefix.
struct LoadedModel {
  explicit LoadedModel(const std::string& name, const std::string& prefix = "")
      : file(below(prefix, tiny_tensors({name})), config_of_dump(name)),
        family(detect_family(*file)),
        network(family->make_network()) {
    check_complete(network->manifest(), family->diffusion(), "diffusion model");
    source.emplace(network->manifest(), family->diffusion(), at::kFloat);
  }
  static std::map<std::string, Tensor> below(const std::string& prefix,
                                             const std::map<std::string, Tensor>& tensors) {
    std::map<std::string, Tensor> result;
    for (const auto& [name, tensor] : tensors) result[prefix + name] = tensor;
    return result;
  }
  InputSpec spec(const std::string& name) const {
    for (const auto& spec : network->inputs())
      if (spec.name == name) return spec;
    FAIL("no input " << name);
    return {};
  }
  CheckpointWithConfig file;
  std::shared_ptr<const Family> family;
  std::unique_ptr<Network> network;
  std::optional<TwiceSource> source;
};

void check_parity(const std::string& name, const std::string& prefix = "") {
  CAPTURE(name);
  Dump dump(name);
  LoadedModel l(name, prefix);
  CHECK(l.family->name() == "LTX-Video");
  CHECK(l.network->manifest().weights().size() == l.family->diffusion().tensors().size());
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json")));
  for (const auto& one : json.at("cases").get<std::vector<std::string>>()) {
    CAPTURE(one);
    CHECK(difference(l.network->apply(inputs_of(dump, one)), dump[one + "/out"]) < 1e-4);
  }
}

}  // namespace

TEST_CASE("ltxv: as ComfyUI and diffusers, under both names") {
  check_parity("ltxv", "model.diffusion_model.");
  check_parity("ltxv_config");
  check_parity("ltxv_diffusers");
}

TEST_CASE("ltxv: sampling and latents as it was trained") {
  LoadedModel l("ltxv");
  CHECK(l.family->sampling()->is_flow());
  // e^2.37 / (e^2.37 + 1 / 0.5 - 1)
  CHECK(l.family->sampling()->percent_to_sigma(0.5) == doctest::Approx(0.91450).epsilon(1e-4));
  CHECK(l.family->sampling()->timestep(0.25f) == doctest::Approx(0.25));
  const auto& format = l.family->latent();
  CHECK(format.channels == 128);
  CHECK(format.downscale == 32);
  CHECK(format.dimensions == 3);
  CHECK(format.rgb_factors.size() == 128);
  CHECK(at::equal(format.into_network(at::ones({1, 128, 1, 1, 1})), at::ones({1, 128, 1, 1, 1})));
  CHECK(l.family->keeps_given_part_clean());
}

TEST_CASE("ltxv: what a conditioning is encoded to") {
  LoadedModel l("ltxv");
  sampling::EncodeContext context{.noise = at::zeros({2, 128, 3, 2, 2})};
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({1, 5, 24});
  auto encoded = [&](const char* name) { return l.family->encode(l.spec(name), item, context); };
  CHECK(encoded("context").value.size(0) == 2);
  CHECK(encoded("frame_rate").number == 25.0);
  for (const char* name : {"attention_mask", "denoise_mask", "keyframes"}) {
    CAPTURE(name);
    CHECK_FALSE(encoded(name).defined());
  }
  item.numbers["frame_rate"] = 24;
  item.tensors["attention_mask"] = at::ones({1, 5});
  item.tensors["keyframe_idxs"] = at::ones({1, 3, 4}, at::kLong);
  context.denoise_mask = at::ones({1, 128, 3, 2, 2});
  CHECK(encoded("frame_rate").number == 24.0);
  CHECK(encoded("attention_mask").value.sizes() == at::IntArrayRef({2, 5}));
  CHECK(encoded("keyframes").value.sizes() == at::IntArrayRef({2, 3, 4}));
  // A mask that is the same all over each frame is one number a frame.
  CHECK(encoded("denoise_mask").value.sizes() == at::IntArrayRef({2, 1, 3, 1, 1}));
  context.denoise_mask[0][0][1][0][1] = 0;
  CHECK(encoded("denoise_mask").value.sizes() == at::IntArrayRef({2, 1, 3, 2, 2}));
}

TEST_CASE("ltxv: blocks and attentions that are left out") {
  Dump dump("ltxv");
  LoadedModel l("ltxv");
  auto inputs = inputs_of(dump, "main");
  auto blocks = l.network->manifest().blocks().size();
  Patches patches;
  patches.skipped = {"double_blocks.1"};
  auto skipped = l.network->apply(inputs, patches);
  CHECK(l.source->runs.size() == blocks - 1);
  patches.skipped = {"double_blocks.1.attn1"};
  auto still = l.network->apply(inputs, patches);
  CHECK(difference(still, dump["main/out"]) > 1e-3);
  CHECK(difference(still, skipped) > 1e-3);
  // Where there is one token alone, what it looks at is itself.
  Inputs one = inputs;
  one.set("x", dump["main/x"].narrow(2, 0, 1).narrow(3, 0, 1).narrow(4, 0, 1).contiguous());
  CHECK(difference(l.network->apply(one, patches), l.network->apply(one)) < 1e-5);
}

TEST_CASE("ltxv: a mask that is the same everywhere is a lower noise level") {
  Dump dump("ltxv");
  LoadedModel l("ltxv");
  auto inputs = inputs_of(dump, "main");
  auto masked = inputs, lower = inputs;
  masked.set("denoise_mask", at::full({2, 1, 1, 1, 1}, 0.5));
  lower.set("timestep", inputs["timestep"] * 0.5);
  auto wanted = l.network->apply(lower);
  CHECK(difference(l.network->apply(masked), wanted) < 1e-5);
  masked.set("denoise_mask", at::full({2, 1, 2, 2, 2}, 0.5));
  CHECK(difference(l.network->apply(masked), wanted) < 1e-5);
  // By frame and by token it is the same.
  auto frames = at::tensor({0.25f, 1.0f}).view({1, 1, 2, 1, 1}).expand({2, 1, 2, 1, 1});
  masked.set("denoise_mask", frames);
  auto by_frame = l.network->apply(masked);
  masked.set("denoise_mask", frames.expand({2, 1, 2, 2, 2}));
  CHECK(difference(l.network->apply(masked), by_frame) < 1e-5);
}

TEST_CASE("ltxv: prompts of at least 128 tokens, of which those behind the end do not count") {
  Dump dump("text_ltxv");
  TemporaryCheckpoint file(tiny_tensors({"text_ltxv"}));
  LoadedRecipe whole(checkpoint_recipe(*file, "ltxv"));
  auto alone = file->part("text_encoders.t5xxl.transformer.");
  LoadedRecipe single(text_recipe({alone}, "ltxv"));
  int i = 0;
  for (const auto& c : cases_of("text_ltxv")) {
    CAPTURE(i);
    const auto prompt = c["prompt"].get<std::string>();
    const auto count = c["count"].get<std::int64_t>();
    auto got = whole(prompt);
    CHECK(got.states.size(1) == c["tokens"].get<std::int64_t>());
    auto wanted = dump["states." + std::to_string(i)];
    CHECK(difference(got.states.narrow(1, 0, wanted.size(1)), wanted) < 1e-4);
    CHECK(got.mask.sizes() == at::IntArrayRef({1, got.states.size(1)}));
    CHECK(got.mask.narrow(1, 0, count).min().item<float>() == 1.0f);
    CHECK(got.mask.narrow(1, count, got.mask.size(1) - count).max().item<float>() == 0.0f);
    CHECK(at::equal(single(prompt).states, got.states));
    ++i;
  }
  CHECK(i == 3);
  CHECK_THROWS_WITH_AS(text_recipe({alone, alone}, "ltxv"), doctest::Contains("type 'ltxv' takes"),
                       Error);
}

TEST_CASE("ltxv: inputs that do not fit") {
  Dump dump("ltxv");
  LoadedModel l("ltxv");
  auto fails = [&](const char* name, const Tensor& value, const char* sentence) {
    auto inputs = inputs_of(dump, "main");
    inputs.set(name, value);
    CHECK_THROWS_WITH_AS(l.network->apply(inputs), doctest::Contains(sentence), Error);
  };
  fails("x", at::zeros({2, 16, 2, 2, 2}), "latent");
  fails("context", at::zeros({2, 5, 25}), "text conditioning");
  fails("keyframes", at::zeros({2, 3, 9}), "9 tokens guide a latent that has 8");
  fails("denoise_mask", at::zeros({2, 1, 3, 2, 2}), "noise mask");
}

TEST_CASE("ltxv: files that lack a tensor, or say of themselves what is not so") {
  auto tensors = tiny_tensors({"ltxv"});
  auto said = [&](const std::string& config) {
    CheckpointWithConfig file(tensors, config);
    return detect_family(*file);
  };
  CHECK_THROWS_WITH_AS(said("{"), doctest::Contains("that is no JSON"), Error);
  CHECK_THROWS_WITH_AS(said(R"({"transformer": 3})"),
                       doctest::Contains("whose 'transformer' is no object"), Error);
  CHECK_THROWS_WITH_AS(
      said(R"({"transformer": {"num_attention_heads": "many"}})"),
      doctest::Contains("'num_attention_heads' should be a whole number of 1 to 1024"), Error);
  CHECK_THROWS_WITH_AS(said(R"({"transformer": {"causal_temporal_positioning": 1}})"),
                       doctest::Contains("should be true or false"), Error);
  CHECK_THROWS_WITH_AS(said(R"({"transformer": {"num_attention_heads": 3}})"),
                       doctest::Contains("no even number for each of 3 heads"), Error);
  tensors.erase("transformer_blocks.1.attn2.q_norm.weight");
  CheckpointWithConfig file(tensors, "");
  auto family = detect_family(*file);
  auto network = family->make_network();
  CHECK_THROWS_WITH_AS(check_complete(network->manifest(), family->diffusion(), "diffusion model"),
                       doctest::Contains("transformer_blocks.1.attn2.q_norm.weight"), Error);
}

TEST_CASE("ltxv: full sizes are read off shapes, and relatives are left alone") {
  ltxv::Transformer small({}), large({.width = 4096, .mlp_width = 16384, .layers = 48});
  CHECK(parameters(small.manifest()) == 1'923'385'472);
  CHECK(parameters(large.manifest()) == 13'042'569'344);
  CHECK(large.manifest().blocks().size() == 48 + 2);
  auto shapes = shapes_only(large.manifest());
  auto config = ltxv::config_of(ltxv::with_our_names(shapes));
  CHECK(config.width == 4096);
  CHECK(config.heads == 32);
  CHECK(config.mlp_width == 16384);
  CHECK(config.layers == 48);
  CHECK_FALSE(config.causal_times);
  // LTX-2 makes sound too.
  shapes.add("audio_patchify_proj.weight", {.dtype = formats::DType::F16, .shape = {2048, 128}});
  CHECK(ltxv::with_our_names(shapes).empty());
}
