// T5, and the text encoders of flow models together, against transformers and ComfyUI.
#include "distorch/models/text_recipes.h"
#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/t5/encoder.h"
#include "distorch/models/t5/text_model.h"
#include "tests/models/text_tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;
using weights::Checkpoint;

namespace {

/// Every seventh token, which is what dumps have.
Tensor thinned(const Tensor& states) { return states.slice(1, 0, states.size(1), 7); }

const std::string kBelow = "text_encoders.";

/// The file of one encoder alone, out of a whole checkpoint.
Checkpoint alone(const Checkpoint& file, const std::string& name) {
  return file.part(kBelow + name + ".transformer.");
}

Checkpoint with(const Checkpoint& file, const std::vector<std::string>& names) {
  Checkpoint some;
  for (const auto& name : names) {
    auto part = alone(file, name);
    for (const auto& [tensor, stored] : part.tensors())
      some.add(kBelow + name + ".transformer." + tensor, stored);
  }
  return some;
}

}  // namespace

TEST_CASE("T5: both forms as transformers computes them") {
  for (const char* name : {"t5", "t5_old"}) {
    CAPTURE(name);
    Dump dump(name);
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto part = t5::text_part(*file);
    t5::TextModel model(t5::text_config(part));
    CHECK(model.config().heads == 3);
    CHECK(model.config().gated == (std::string(name) == "t5"));
    check_complete(model.manifest(), part, "text encoder");
    TwiceSource source(model.manifest(), part, at::kFloat);
    auto ids = dump["ids"].to(at::kLong);
    auto last = model.forward(ids);
    CHECK(difference(last, dump["last"]) < 1e-4);
    CHECK(difference(model.forward(ids, {}, -2), dump["layers.1"]) < 1e-4);
    CHECK(difference(model.forward(ids, {}, 1), dump["layers.1"]) < 1e-4);
    CHECK(at::equal(model.forward(ids, {}, -7), last));  // more than there are: the last

    auto table = model.manifest().slot(0).value;
    auto blanked = ids.clone();
    blanked[1][5] = 0;
    CHECK(at::equal(model.forward(blanked, {{1, 5, table[ids[1][5].item<std::int64_t>()]}}), last));
    CHECK_THROWS_WITH_AS(model.forward(ids, {{0, 0, at::zeros({7})}}),
                         doctest::Contains("7 numbers"), Error);
  }
}

TEST_CASE("T5: sums are kept in float32 where layers compute in bfloat16 or float16") {
  Dump dump("t5");
  TemporaryCheckpoint file(tiny_tensors({"t5"}));
  auto part = t5::text_part(*file);
  for (auto dtype : {at::kBFloat16, at::kHalf}) {
    t5::TextModel model(t5::text_config(part));
    TwiceSource source(model.manifest(), part, dtype);
    auto got = model.forward(dump["ids"].to(at::kLong));
    CHECK((got.scalar_type() == at::kFloat));
    CHECK(difference(got, dump["last"]) < (dtype == at::kHalf ? 0.01 : 0.1));
  }
}

TEST_CASE("T5: the real encoder by shapes alone; UMT5's biases everywhere") {
  t5::TextModel xxl(t5::TextConfig{});
  CHECK(parameters(xxl.manifest()) == 4'762'310'656);
  CHECK(xxl.manifest().blocks().size() == 26);
  auto config = t5::text_config(t5::text_part(shapes_only(xxl.manifest())));
  CHECK(config.layers == 24);
  CHECK(config.heads == 64);
  CHECK(config.mlp_width == 10240);
  CHECK_FALSE(config.bias_everywhere);
  t5::TextModel umt5(t5::TextConfig{.layers = 2, .bias_everywhere = true});
  auto shapes = shapes_only(umt5.manifest());
  CHECK(t5::text_config(t5::umt5_text_part(shapes)).bias_everywhere);
  CHECK(t5::text_part(shapes).empty());
  CHECK(t5::umt5_text_part(shapes_only(xxl.manifest())).empty());
}

TEST_CASE(
    "UMT5: prompts by the file's own SentencePiece model, as ComfyUI and transformers encode "
    "them") {
  Dump dump("umt5");
  TemporaryCheckpoint tiny(tiny_tensors({"umt5"}));
  auto file = *tiny;
  file.add("spiece_model",
           *open_checkpoint(parity_dir() / "umt5.safetensors").find("spiece_model"));
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / "umt5.json"));
  auto part = t5::umt5_part_of("umt5xxl", t5::umt5_text_part(file), json.at("shortest"), {});
  auto encoder = part.make(std::make_shared<Vocabularies>("/nowhere"));
  TwiceSource source(encoder->manifest(), part.part, at::kFloat);
  int i = 0;
  for (const auto& c : json.at("cases")) {
    CAPTURE(i);
    auto batch = encoder->tokenize(c.at("prompt").get<std::string>(), nullptr);
    auto ids = c.at("ids").get<std::vector<std::int64_t>>();
    auto count = static_cast<std::int64_t>(ids.size());
    CHECK(at::equal(batch.ids[0].narrow(0, 0, count), at::tensor(ids, at::kLong)));
    CHECK(batch.mask.sum().item<double>() == doctest::Approx(static_cast<double>(count)));
    auto got = encoder->encode(batch, {}, at::kCPU);
    CHECK(difference(got.states, dump["states." + std::to_string(i)]) < 1e-4);
    ++i;
  }
  auto recipe = text_recipe({file}, "wan");
  CHECK(recipe.encoders.at(0).name == "umt5xxl");
  CHECK_THROWS_WITH_AS(text_recipe({file}, "flux"), doctest::Contains("type 'flux' takes"), Error);
}

TEST_CASE("UMT5: a vocabulary that is missing or broken is named") {
  auto tensors = tiny_tensors({"umt5"});
  TemporaryCheckpoint without(tensors);
  auto part = t5::umt5_part_of("umt5xxl", t5::umt5_text_part(*without), 8, {});
  auto encoder = part.make(std::make_shared<Vocabularies>("/nowhere/clip"));
  CHECK_THROWS_WITH_AS(encoder->tokenize(Prompt("a"), nullptr), doctest::Contains("spiece.model"),
                       Error);
  CHECK_THROWS_WITH_AS(tokenizers::SentencePiece("nothing of the kind", "x.model"),
                       doctest::Contains("x.model: holds no SentencePiece model"), Error);
}

TEST_CASE("text recipes: FLUX's prompts as ComfyUI encodes them") {
  Dump dump("text_flux");
  TemporaryCheckpoint file(tiny_tensors({"text_flux"}));
  LoadedRecipe whole(checkpoint_recipe(*file, "flux"));
  LoadedRecipe files(text_recipe({alone(*file, "t5xxl"), alone(*file, "clip_l")}, "flux"));
  int i = 0;
  for (const auto& c : cases_of("text_flux")) {
    CAPTURE(i);
    auto got = whole(c["prompt"].get<std::string>());
    CHECK(got.states.size(1) == c["tokens"].get<std::int64_t>());
    CHECK(difference(thinned(got.states), dump["cond." + std::to_string(i)]) < 1e-4);
    CHECK(difference(got.pooled, dump["pooled." + std::to_string(i)]) < 1e-4);
    CHECK(at::equal(files(c["prompt"].get<std::string>()).states, got.states));
    ++i;
  }
}

TEST_CASE("text recipes: SD3's prompts with any of its encoders, as ComfyUI encodes them") {
  Dump dump("text_sd3");
  TemporaryCheckpoint file(tiny_tensors({"text_sd3"}));
  int i = 0;
  for (const auto& c : cases_of("text_sd3")) {
    CAPTURE(i);
    auto names = c["encoders"].get<std::vector<std::string>>();
    // An absent CLIP-L leaves its real width, beside which the tiny T5 is too narrow: see below.
    if (names.front() == "clip_g") {
      ++i;
      continue;
    }
    LoadedRecipe loaded(checkpoint_recipe(with(*file, names), "sd3"));
    auto got = loaded(c["prompt"].get<std::string>());
    auto wanted = dump["cond." + std::to_string(i)], pooled = dump["pooled." + std::to_string(i)];
    CHECK(got.states.size(1) == c["tokens"].get<std::int64_t>());
    // Without T5 we fill up to its real width; absent encoders have their real width too.
    auto states = thinned(got.states);
    CHECK(difference(states.narrow(2, 0, wanted.size(2)), wanted) < 1e-4);
    CHECK(states.size(2) == (names.back() == "t5xxl" ? wanted.size(2) : 4096));
    auto width = pooled.size(1) / 2;
    CHECK(difference(got.pooled.narrow(1, 0, width), pooled.narrow(1, 0, width)) < 1e-4);
    if (names.size() > 1 && names[1] == "clip_g")
      CHECK(difference(got.pooled.narrow(1, width, width), pooled.narrow(1, width, width)) < 1e-4);
    ++i;
  }
  LoadedRecipe all(checkpoint_recipe(*file, "sd3"));
  TextStates g{at::ones({1, 77, 1280}), at::ones({1, 1280})}, t5{at::ones({1, 80, 4096}), {}};
  auto without_l = checkpoint_recipe(with(*file, {"clip_g", "t5xxl"}), "sd3").join({g, t5});
  CHECK(without_l.states.sizes() == at::IntArrayRef({1, 157, 4096}));
  CHECK(at::equal(without_l.states[0][3].narrow(0, 768, 1280), at::ones({1280})));
  CHECK(without_l.states[0][3].sum().item<double>() == 1280);
  CHECK(without_l.pooled.sizes() == at::IntArrayRef({1, 2048}));
  CHECK(without_l.pooled.narrow(1, 0, 768).sum().item<double>() == 0);
  Prompt silent;
  silent.silent = true;
  auto nothing = all(silent);
  CHECK(nothing.states.size(1) == 1);  // of T5: the end token alone
  CHECK(nothing.pooled.abs().sum().item<double>() == 0);
}

TEST_CASE("text recipes: wrong files are refused with what would fit") {
  TemporaryCheckpoint file(tiny_tensors({"text_sd3"}));
  auto l = alone(*file, "clip_l"), g = alone(*file, "clip_g"), t5 = alone(*file, "t5xxl");
  auto refusal = [](const std::vector<Checkpoint>& files, const std::string& type) {
    try {
      text_recipe(files, type);
    } catch (const Error& e) {
      return e.sentence();
    }
    return std::string("accepted");
  };
  CHECK(refusal({l, g}, "flux") ==
        "type 'flux' takes CLIP-L and T5; these files hold CLIP-L and OpenCLIP-G");
  CHECK(refusal({l, l}, "sdxl") ==
        "type 'sdxl' takes CLIP-L and OpenCLIP-G; these files hold CLIP-L and CLIP-L");
  CHECK(refusal({t5}, "mochi") ==
        "text encoders of type 'mochi' are not supported yet; this file holds T5");
  CHECK(refusal({l}, "hidream").find("not supported yet") != std::string::npos);
  CHECK(refusal({g}, "stable_cascade").find("not supported yet") != std::string::npos);
  CHECK(refusal({l, g, t5}, "sd3") == "accepted");
  CHECK(refusal({t5}, "sd3") == "accepted");
  TemporaryCheckpoint other({{"some.weight", at::ones({2, 2})}});
  CHECK(refusal({*other, t5}, "flux") ==
        "holds no text encoder that is known; type 'flux' takes CLIP-L and T5");
  CHECK_THROWS_WITH_AS(detect_family(t5), doctest::Contains("it holds the text encoder T5"), Error);
  CHECK(checkpoint_recipe(*other, "flux").empty());
}

TEST_CASE("LoRA names of T5 in FLUX and SD3") {
  TemporaryCheckpoint file(tiny_tensors({"text_sd3"}));
  auto names = [&](const std::vector<std::string>& encoders, const std::string& type) {
    auto recipe = checkpoint_recipe(with(*file, encoders), type);
    const auto& part = recipe.encoders.back();
    return part.lora_names(part.make(vocabularies())->manifest());
  };
  auto flux = names({"clip_l", "t5xxl"}, "flux"), sd3 = names({"clip_l", "clip_g", "t5xxl"}, "sd3");
  const std::string ending = "encoder_block_1_layer_0_SelfAttention_q";
  const std::string weight = "encoder.block.1.layer.0.SelfAttention.q.weight";
  REQUIRE(flux.count("lora_te2_" + ending) == 1);
  CHECK(flux.at("lora_te2_" + ending) == weight);
  CHECK(flux.count("lora_te3_" + ending) == 1);
  REQUIRE(sd3.count("lora_te3_" + ending) == 1);
  CHECK(sd3.at("lora_te3_" + ending) == weight);
  CHECK(sd3.count("lora_te2_" + ending) == 0);
}
