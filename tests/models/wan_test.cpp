#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/wan/concat.h"
#include "distorch/models/wan/family.h"
#include "distorch/models/wan/transformer.h"
#include "tests/models/tiny_wan.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using namespace distorch::models::wan;
using at::Tensor;

namespace {

using Loaded = LoadedWan;

Tensor times() { return at::tensor({700.0, 200.5}, at::kFloat); }

Inputs small(const Dump& dump) {
  return {{"x", dump["small"]}, {"timestep", times()}, {"context", dump["text"]}};
}

Inputs pictures(const Dump& dump) {
  auto inputs = small(dump);
  inputs.set("concat", dump["beside"]);
  inputs.set("vision", dump["vision"]);
  return inputs;
}

std::map<std::string, Tensor> prefixed(const std::string& prefix,
                                       const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : tensors) result[prefix + name] = tensor;
  return result;
}

}  // namespace

TEST_CASE("Wan: text to video as ComfyUI and diffusers compute it") {
  Loaded l("wan_t2v");
  Dump dump("wan_t2v");
  CHECK(l.net.config().heads() == 2);
  CHECK((Config::axes() == std::vector<std::int64_t>{44, 42, 42}));
  CHECK(difference(l.net.apply(small(dump)), dump["out/plain"]) < 1e-4);
  CHECK(l.source->runs.size() == 4);
  Inputs odd = {{"x", dump["odd"]},
                {"timestep", at::tensor({450.0}, at::kFloat)},
                {"context", dump["text"].narrow(0, 0, 1)}};
  CHECK(difference(l.net.apply(odd), dump["out/odd"]) < 1e-4);
  auto more = small(dump);
  more.set("subjects", dump["subjects"]);
  CHECK(difference(l.net.apply(more), dump["out/subjects"]) < 1e-4);
}

TEST_CASE("Wan: a noise level for each frame") {
  Loaded l("wan_t2v");
  Dump dump("wan_t2v");
  auto inputs = small(dump);
  // The first frame is given; of the second video's last frame half is made anew.
  auto mask = at::ones({2, 16, 3, 4, 6});
  mask.select(2, 0).zero_();
  mask[1].select(1, 2).mul_(0.5);
  inputs.set("denoise_mask", mask);
  CHECK(difference(l.net.apply(inputs), dump["out/frame_times"]) < 1e-4);
}

TEST_CASE("Wan: pictures to video") {
  Dump dump("wan_i2v");
  Loaded l("wan_i2v");
  CHECK(difference(l.net.apply(pictures(dump)), dump["out/vision"]) < 1e-4);
  auto blind = small(dump);
  blind.set("concat", dump["beside"]);
  CHECK(difference(l.net.apply(blind), dump["out/blind"]) < 1e-4);

  Loaded places("wan_flf");
  Dump flf("wan_flf");
  CHECK(places.net.config().vision_places == 6);
  CHECK(difference(places.net.apply(pictures(flf)), flf["out/places"]) < 1e-4);

  Loaded with_reference("wan_reference");
  Dump reference("wan_reference");
  auto inputs = pictures(reference);
  CHECK(difference(with_reference.net.apply(inputs), reference["out/without"]) < 1e-4);
  inputs.set("reference", reference["reference"]);
  CHECK(difference(with_reference.net.apply(inputs), reference["out/reference"]) < 1e-4);
}

TEST_CASE("Wan: diffusers' names") {
  for (std::string dump : {"wan_t2v", "wan_i2v"}) {
    CAPTURE(dump);
    Loaded l(under_diffusers_names(dump));
    Dump wanted(dump);
    auto inputs = dump == "wan_t2v" ? small(wanted) : pictures(wanted);
    CHECK(difference(l.net.apply(inputs), wanted[dump == "wan_t2v" ? "out/plain" : "out/vision"]) <
          1e-4);
    CHECK(detect_family(*l.file)->name() == "Wan");
  }
}

TEST_CASE("Wan: skipped layers, and a text of another encoder") {
  Loaded l("wan_t2v");
  Dump dump("wan_t2v");
  Patches patches;
  patches.skipped = {"double_blocks.1"};
  l.net.apply(small(dump), patches);
  CHECK(l.source->runs.size() == 3);
  auto inputs = small(dump);
  inputs.set("context", at::zeros({2, 7, 32}));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs), doctest::Contains("belongs to another model"), Error);
}

TEST_CASE("Wan: found under every prefix; relatives with more parts are not taken for it") {
  auto tensors = tiny_tensors({"wan_t2v"});
  for (std::string prefix : {"", "model.diffusion_model.", "diffusion_model."}) {
    CAPTURE(prefix);
    TemporaryCheckpoint file(prefixed(prefix, tensors));
    auto family = detect_family(*file);
    CHECK(family->name() == "Wan");
    CHECK(family->latent().channels == 16);
    CHECK(family->latent().dimensions == 3);
    CHECK(family->latent().downscale == 8);
    CHECK(family->sampling()->is_flow());
    CHECK_FALSE(family->keeps_given_part_clean());
  }
  auto more = tensors;
  more["audio_proj.audio_proj_glob_1.layer.bias"] = at::zeros({1});
  TemporaryCheckpoint relative(more);
  CHECK_THROWS_WITH_AS(detect_family(*relative),
                       doctest::Contains("holds no diffusion model of a known family"), Error);
  more = tensors;
  more["vace_patch_embedding.weight"] = at::zeros({256, 96, 1, 2, 2});
  TemporaryCheckpoint half(more);
  CHECK_THROWS_WITH_AS(detect_family(*half), doctest::Contains("no layers 'vace_blocks.0'"), Error);
  Config large;
  CHECK(parameters(Transformer(large).manifest()) == 14'288'491'584);
  Config second{
      .width = 3072, .mlp_width = 14336, .layers = 30, .in_channels = 48, .out_channels = 48};
  Transformer net(second);
  auto family = detect_family(shapes_only(net.manifest()));
  CHECK(family->name() == "Wan 2.2");
  CHECK(family->latent().channels == 48);
  CHECK(family->latent().downscale == 16);
  CHECK(family->keeps_given_part_clean());
}

TEST_CASE("Wan: widths that do not go together are named") {
  auto tensors = tiny_tensors({"wan_t2v"});
  tensors["patch_embedding.weight"] = at::zeros({200, 16, 1, 2, 2});
  TemporaryCheckpoint narrow(tensors);
  CHECK_THROWS_WITH_AS(config_of(with_original_names(*narrow)), doctest::Contains("width 200"),
                       Error);
  tensors["patch_embedding.weight"] = at::zeros({256, 8, 1, 2, 2});
  TemporaryCheckpoint few(tensors);
  CHECK_THROWS_WITH_AS(config_of(with_original_names(*few)),
                       doctest::Contains("takes 8 channels and gives 16"), Error);
}

TEST_CASE("Wan: conditionings of a smaller batch begin again for the rest of the noise") {
  TemporaryCheckpoint file(tiny_tensors({"wan_i2v"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  sampling::EncodeContext context;
  context.noise = at::zeros({5, 16, 3, 4, 6});
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({2, 9, 48});
  item.tensors["clip_vision_penultimate"] = at::randn({2, 7, 1280});
  for (const auto& spec : network->inputs()) {
    if (spec.name != "context" && spec.name != "vision") continue;
    const auto& given =
        spec.name == "context" ? item.cross_attn : item.tensors["clip_vision_penultimate"];
    auto order = at::tensor({0, 1, 0, 1, 0}, at::kLong);
    CHECK(at::equal(family->encode(spec, item, context).value, given.index_select(0, order)));
  }
}

TEST_CASE("Wan: what goes beside the latent") {
  auto format = detect_family(*TemporaryCheckpoint(tiny_tensors({"wan_t2v"})))->latent();
  sampling::EncodeContext context;
  context.noise = at::zeros({2, 16, 3, 4, 6});
  sampling::ConditioningItem item;

  SUBCASE("nothing given: zeros") {
    auto beside = concat_of(item, context, format, 20, true);
    CHECK(beside.sizes() == at::IntArrayRef({2, 20, 3, 4, 6}));
    CHECK(beside.abs().max().item<float>() == 0.0f);
  }
  SUBCASE(
      "a first frame: the mask first, 1 where it is given, then the latent in the network's "
      "scale") {
    item.tensors["concat_latent_image"] = at::randn({1, 16, 3, 4, 6});
    auto mask = at::ones({1, 1, 3, 4, 6});
    mask.select(2, 0).zero_();
    item.tensors["concat_mask"] = mask;
    auto beside = concat_of(item, context, format, 20, true);
    CHECK(beside.sizes() == at::IntArrayRef({2, 20, 3, 4, 6}));
    auto given = beside.narrow(1, 0, 4);
    CHECK(given.select(2, 0).min().item<float>() == 1.0f);
    CHECK(given.narrow(2, 1, 2).abs().max().item<float>() == 0.0f);
    auto wanted = format.into_network(item.tensors["concat_latent_image"]);
    CHECK(at::equal(beside[1].narrow(0, 4, 16), wanted[0]));
  }
  SUBCASE("a mask of too few frames leaves the others open") {
    item.tensors["concat_latent_image"] = at::zeros({1, 16, 3, 4, 6});
    item.tensors["concat_mask"] = at::zeros({1, 4, 1, 4, 6});
    auto given = concat_of(item, context, format, 20, true).narrow(1, 0, 4);
    CHECK(given.select(2, 0).min().item<float>() == 1.0f);
    CHECK(given.narrow(2, 1, 2).abs().max().item<float>() == 0.0f);
  }
  SUBCASE("a control video and a first frame: no mask") {
    item.tensors["concat_latent_image"] = at::randn({1, 32, 3, 4, 6});
    auto beside = concat_of(item, context, format, 32, false);
    auto both = item.tensors["concat_latent_image"];
    auto wanted = at::cat(
        {format.into_network(both.narrow(1, 0, 16)), format.into_network(both.narrow(1, 16, 16))},
        1);
    CHECK(at::equal(beside[0], wanted[0]));
  }
  SUBCASE("another size is resized and cut") {
    item.tensors["concat_latent_image"] = at::ones({1, 16, 3, 8, 8});
    CHECK(concat_of(item, context, format, 20, true).sizes() == at::IntArrayRef({2, 20, 3, 4, 6}));
  }
}
