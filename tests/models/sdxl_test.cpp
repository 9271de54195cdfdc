#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/clip/config.h"
#include "distorch/models/clip/text_model.h"
#include "distorch/models/sd/unet.h"
#include "distorch/models/sd/unet_family.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

InputSpec vector_of(const Network& network) {
  for (const auto& spec : network.inputs())
    if (spec.name == "vector") return spec;
  return {};
}

/// The conditioning of row `row` of a dump's case, as nodes make it.
sampling::ConditioningItem item_of(const Tensor& pooled, const Tensor& numbers, std::int64_t row,
                                   const std::vector<const char*>& names) {
  sampling::ConditioningItem item;
  item.pooled_output = pooled.narrow(0, row, 1);
  for (std::size_t i = 0; i < names.size(); ++i)
    item.numbers[names[i]] = numbers[row][static_cast<std::int64_t>(i)].item<double>();
  return item;
}

/// A UNet and its second vector, made by the family, against diffusers.
void check_parity(const std::string& name, const std::vector<const char*>& numbers) {
  Dump dump(name);
  TemporaryCheckpoint file(tiny_tensors({name}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "diffusion model");
  CHECK(network->manifest().weights().size() == family->diffusion().tensors().size());
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  for (std::string one : {"main", "odd", "long"}) {
    CAPTURE(one);
    auto x = dump[one + "/x"], pooled = dump[one + "/pooled"];
    std::vector<Tensor> rows;
    for (std::int64_t row = 0; row < x.size(0); ++row) {
      auto item = item_of(pooled, dump[one + "/numbers"], row, numbers);
      rows.push_back(family->encode(vector_of(*network), item, {.noise = x}).value);
    }
    Inputs inputs{{"x", x},
                  {"timestep", dump[one + "/timesteps"]},
                  {"context", dump[one + "/context"]},
                  {"vector", at::cat(rows)}};
    int stages = 0;
    auto& unet = dynamic_cast<sd::UNet&>(*network);
    auto out = unet.apply(inputs, {}, [&](const std::string& stage, const Tensor& output) {
      // Ours has the second vector in the time embedding already.
      if (one != "main" || stage == "time_embed") return;
      CAPTURE(stage);
      CHECK(difference(output, dump["main/" + stage]) < 1e-4);
      ++stages;
    });
    CHECK(difference(out, dump[one + "/out"]) < 1e-4);
    if (one == "main") CHECK(stages > 15);
  }
}

sd::UNetConfig xl_config(std::vector<std::int64_t> res_blocks, std::vector<std::int64_t> depth_in,
                         std::vector<std::int64_t> depth_out, std::int64_t middle) {
  sd::UNetConfig c;
  c.channels = {320, 640, 1280};
  c.context_width = 2048;
  c.vector_width = 2816;
  c.linear_projection = true;
  c.res_blocks = std::move(res_blocks);
  c.depth_in = std::move(depth_in);
  c.depth_out = std::move(depth_out);
  c.depth_middle = middle;
  return c;
}

sd::UNetConfig refiner_config() {
  auto c =
      xl_config({2, 2, 2, 2}, {0, 0, 4, 4, 4, 4, 0, 0}, {0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0}, 4);
  c.model_channels = 384;
  c.time_width = 1536;
  c.channels = {384, 768, 1536, 1536};
  c.context_width = 1280;
  c.vector_width = 2560;
  return c;
}

}  // namespace

TEST_CASE("SDXL: every stage of a tiny base model as diffusers computes it, sizes and all") {
  check_parity("unet_sdxl",
               {"height", "width", "crop_h", "crop_w", "target_height", "target_width"});
}

TEST_CASE("SDXL: every stage of a tiny refiner as diffusers computes it, score and all") {
  check_parity("unet_refiner", {"height", "width", "crop_h", "crop_w", "aesthetic_score"});
}

TEST_CASE("SDXL: sizes of the real models, and smaller ones by their shapes") {
  struct Case {
    std::string title;
    sd::UNetConfig config;
    std::int64_t parameters;
    std::string family;
  };
  const std::vector<Case> cases = {
      {"base", xl_config({2, 2, 2}, {0, 0, 2, 2, 10, 10}, {10, 10, 10, 2, 2, 2, 0, 0, 0}, 10),
       2'567'463'684, "SDXL"},
      {"refiner", refiner_config(), 0, "SDXL refiner"},
      {"SSD-1B", xl_config({2, 2, 2}, {0, 0, 2, 2, 4, 4}, {4, 4, 10, 2, 1, 1, 0, 0, 0}, -1), 0,
       "SDXL"},
      {"Segmind Vega", xl_config({2, 2, 2}, {0, 0, 1, 1, 2, 2}, {2, 2, 2, 1, 1, 1, 0, 0, 0}, -1), 0,
       "SDXL"},
      {"KOALA 700M", xl_config({1, 1, 1}, {0, 2, 5}, {5, 5, 2, 2, 0, 0}, -2), 0, "SDXL"},
      {"KOALA 1B", xl_config({1, 1, 1}, {0, 2, 6}, {6, 6, 2, 2, 0, 0}, 6), 0, "SDXL"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.title);
    sd::UNet unet(one.config);
    if (one.parameters > 0) CHECK(parameters(unet.manifest()) == one.parameters);
    auto family = detect_family(shapes_only(unet.manifest(), "model.diffusion_model."));
    CHECK(family->name() == one.family);
    auto network = family->make_network();
    CHECK(network->manifest().weights().size() == unet.manifest().weights().size());
    CHECK(network->manifest().blocks() == unet.manifest().blocks());
    CHECK(family->sampling()->prediction() == sampling::Prediction::Eps);
    CHECK(family->latent().scale_factor == doctest::Approx(0.13025));

    // The same under diffusers' names.
    std::map<std::string, std::string> theirs;
    for (const auto& [their, our] : sd::diffusers_names(one.config))
      if (!their.starts_with("class_")) theirs[our] = their;
    weights::Checkpoint diffusers;
    for (const auto& weight : unet.manifest().weights())
      diffusers.add(theirs.at(weight.name), {.shape = weight.shape});
    auto again = detect_family(diffusers);
    CHECK(again->name() == one.family);
    CHECK(again->make_network()->manifest().blocks() == unet.manifest().blocks());
  }
}

TEST_CASE("SDXL: marks beside the weights say what a checkpoint was trained for") {
  auto tensors = tiny_tensors({"unet_sdxl"});
  auto family = [&](const std::map<std::string, Tensor>& marks) {
    auto with = tensors;
    with.insert(marks.begin(), marks.end());
    TemporaryCheckpoint file(with);
    return detect_family(*file);
  };
  auto mark = at::zeros({1});
  auto velocity = family({{"v_pred", mark}});
  CHECK(velocity->sampling()->prediction() == sampling::Prediction::V);
  CHECK(velocity->sampling()->sigma_max() < 20);
  CHECK(family({{"v_pred", mark}, {"ztsnr", mark}})->sampling()->sigma_max() > 1000);
  auto cos = family({{"edm_vpred.sigma_max", at::full({1}, 700.0f)}});
  CHECK(cos->sampling()->prediction() == sampling::Prediction::V);
  CHECK(cos->sampling()->sigma_max() == doctest::Approx(700));
  CHECK(cos->sampling()->sigma_min() == doctest::Approx(0.002));
  auto playground = family({{"edm_mean", mark}, {"edm_std", mark}});
  CHECK(playground->sampling()->prediction() == sampling::Prediction::Edm);
  CHECK(playground->sampling()->sigma_max() == doctest::Approx(80));
  auto latent = at::randn({2, 4, 3, 3});
  const auto& format = playground->latent();
  auto inside = format.into_network(latent);
  CHECK(difference(inside.select(1, 2), (latent.select(1, 2) + 1.383) * 0.5 / 6.5498) < 1e-6);
  CHECK(difference(format.out_of_network(inside), latent) < 1e-5);
}

TEST_CASE("SDXL: what a conditioning does not say is the picture's size; negatives score low") {
  TemporaryCheckpoint one(tiny_tensors({"unet_sdxl"})), two(tiny_tensors({"unet_refiner"}));
  auto base = detect_family(*one), refiner = detect_family(*two);
  auto base_network = base->make_network(), refiner_network = refiner->make_network();
  sampling::ConditioningItem silent;
  silent.pooled_output = at::randn({1, 1280});
  auto said = silent;
  said.numbers = {{"height", 96}, {"width", 160}, {"aesthetic_score", 6}};
  sampling::EncodeContext context{.noise = at::zeros({1, 4, 12, 20})};
  auto of_base = [&](const auto& item) {
    return base->encode(vector_of(*base_network), item, context).value;
  };
  auto of_refiner = [&](const auto& item) {
    return refiner->encode(vector_of(*refiner_network), item, context).value;
  };
  CHECK(at::equal(of_base(silent), of_base(said)));
  CHECK(of_base(silent).sizes() == at::IntArrayRef({1, 2816}));
  CHECK(at::equal(of_refiner(silent), of_refiner(said)));
  context.positive = false;
  CHECK_FALSE(at::equal(of_refiner(silent), of_refiner(said)));
  said.numbers["aesthetic_score"] = 2.5;
  CHECK(at::equal(of_refiner(silent), of_refiner(said)));

  // Without a pooled output there is none; the network says so.
  CHECK_FALSE(base->encode(vector_of(*base_network), {}, context).defined());
  Inputs inputs{{"x", at::zeros({1, 4, 8, 8})},
                {"timestep", at::zeros({1})},
                {"context", at::zeros({1, 77, 128})}};
  CHECK_THROWS_WITH_AS(
      base_network->apply(inputs),
      doctest::Contains("pooled conditioning ('vector') of [batch, 2816], got none"), Error);
}

TEST_CASE("OpenCLIP-G: the states and the projection as transformers computes them") {
  using namespace clip;
  Dump dump("clip_g");
  TemporaryCheckpoint file(tiny_tensors({"clip_g"}));
  auto part = text_part_below(*file, "conditioner.embedders.0.model.");
  TextModel model(text_config(part, TextKind::ClipG));
  check_complete(model.manifest(), part, "text encoder");
  TwiceSource source(model.manifest(), part, at::kFloat);
  auto ids = dump["ids"].to(at::kLong);
  auto out = model.forward({ids, {}}, {.layer = -2, .normalize = false});
  CHECK(difference(out.hidden, dump["penultimate"]) < 1e-4);
  CHECK(difference(out.pooled, dump["pooled_projected"]) < 1e-4);
  CHECK(difference(model.forward({ids, {}}).hidden, dump["last"]) < 1e-4);
}

TEST_CASE("SDXL: both text encoders of a checkpoint, and names of LoRAs for each") {
  TemporaryCheckpoint file(tiny_tensors({"unet_sdxl", "vae", "text_sdxl"}));
  auto family = detect_family(*file);
  auto text = family->text(*file);
  REQUIRE(text.encoders.size() == 2);
  CHECK(text.encoders[0].name == "clip_l");
  CHECK(text.encoders[1].name == "clip_g");
  auto l = text.encoders[0].make(nullptr), g = text.encoders[1].make(nullptr);
  CHECK(g->width() == 64);
  CHECK(g->pooled_width() == 1280);
  CHECK_FALSE(family->vae(*file).empty());
  auto names_l = text.encoders[0].lora_names(l->manifest());
  auto names_g = text.encoders[1].lora_names(g->manifest());
  const std::string base = "text_model.encoder.layers.2.mlp.fc1";
  CHECK(names_l.at("lora_te1_text_model_encoder_layers_2_mlp_fc1") == base + ".weight");
  CHECK(names_l.at("text_encoder." + base) == base + ".weight");
  CHECK(names_g.at("lora_te2_text_model_encoder_layers_2_mlp_fc1") == base + ".weight");
  CHECK(names_g.at("text_encoder_2." + base) == base + ".weight");
  CHECK(names_g.count("text_encoder." + base) == 0);
  CHECK(names_l.count("lora_te2_text_model_encoder_layers_2_mlp_fc1") == 0);
}

TEST_CASE("text encoders in files of their own: told by their layers, in any order") {
  auto encoder = [](int layers, std::int64_t projection) {
    clip::TextConfig c;
    c.width = 64;
    c.heads = 1;
    c.layers = layers;
    c.mlp_width = 256;
    c.projection = projection;
    return shapes_only(clip::TextModel(c).manifest());
  };
  auto l = encoder(12, 0), h = encoder(24, 64), g = encoder(32, 64);
  auto first = [](const TextRecipe& recipe) { return recipe.encoders.at(0).name; };
  CHECK(first(text_recipe({l}, "stable_diffusion")) == "clip_l");
  CHECK(first(text_recipe({h}, "stable_diffusion")) == "clip_h");
  CHECK(first(text_recipe({g}, "stable_diffusion")) == "clip_g");
  CHECK(first(text_recipe({l}, "wan")) == "clip_l");
  for (const auto& files : {std::vector{l, g}, std::vector{g, l}}) {
    auto both = text_recipe(files, "sdxl");
    REQUIRE(both.encoders.size() == 2);
    CHECK(both.encoders[1].name == "clip_g");
  }
  CHECK_THROWS_WITH_AS(text_recipe({l, h}, "sdxl"), doctest::Contains("CLIP-L and OpenCLIP-G"),
                       Error);
  CHECK_THROWS_WITH_AS(text_recipe({l, g}, "flux"), doctest::Contains("'flux'"), Error);
  CHECK_THROWS_WITH_AS(text_recipe({g}, "stable_cascade"), doctest::Contains("stable_cascade"),
                       Error);
}
