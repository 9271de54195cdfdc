#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/flux/config.h"
#include "distorch/models/flux/network.h"
#include "tests/models/given_modulations.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;
using flux::ReferenceMethod;

namespace {

Inputs inputs_of(const Dump& dump, const std::string& one, const nlohmann::json& facts) {
  Inputs inputs;
  for (auto [theirs, ours] : {std::pair{"x", "x"},
                              {"timestep", "timestep"},
                              {"context", "context"},
                              {"y", "vector"},
                              {"guidance", "guidance"},
                              {"concat", "concat"}})
    if (dump.has(one + "/" + theirs)) inputs.set(ours, dump[one + "/" + theirs]);
  for (int i = 0; i < facts.at("references").get<int>(); ++i)
    inputs.set(flux::reference_name(i), dump[one + "/ref" + std::to_string(i)]);
  if (facts.at("method").is_string()) {
    const std::map<std::string, ReferenceMethod> methods = {
        {"index", ReferenceMethod::Index},
        {"uxo", ReferenceMethod::Uxo},
        {"index_timestep_zero", ReferenceMethod::IndexTimestepZero}};
    inputs.set_number("reference_method",
                      static_cast<double>(methods.at(facts.at("method").get<std::string>())));
  }
  return inputs;
}

/// Every case of a dump; the family that was detected.
std::shared_ptr<const Family> check_parity(const std::string& name,
                                           const std::map<std::string, Tensor>& tensors) {
  CAPTURE(name);
  Dump dump(name);
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json")));
  TemporaryCheckpoint file(tensors);
  auto family = detect_family(*file);
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "diffusion model");
  CHECK(network->manifest().weights().size() == family->diffusion().tensors().size());
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  for (const auto& facts : json.at("cases")) {
    auto one = facts.at("name").get<std::string>();
    CAPTURE(one);
    const auto inputs = inputs_of(dump, one, facts);
    auto out = network->apply(inputs);
    CHECK(difference(out, dump[one + "/out"]) < 1e-4);
    // FLUX.2's blocks share theirs; references without noise have their own.
    const bool own = facts.at("method") == "index_timestep_zero" && facts.at("references") != 0;
    CHECK(check_given(*network, source, inputs, out) == (!own && !name.starts_with("flux2")));
  }
  return family;
}

std::shared_ptr<const Family> check_parity(const std::string& name) {
  return check_parity(name, tiny_tensors({name}));
}

std::map<std::string, Tensor> renamed(const std::map<std::string, Tensor>& tensors,
                                      const std::string& prefix, const std::string& norms) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : tensors) {
    auto to = name;
    if (auto at = to.find("_norm.weight"); at != std::string::npos)
      to = to.substr(0, at) + "_norm." + norms;
    result[prefix + to] = tensor;
  }
  return result;
}

}  // namespace

TEST_CASE("flux: every kind of FLUX.1 and every arrangement of reference pictures") {
  CHECK(check_parity("flux_dev")->name() == "FLUX.1");
  check_parity("flux_schnell");
  check_parity("flux_fill");
  check_parity("flux_canny");
}

TEST_CASE("flux: FLUX.2") {
  CHECK(check_parity("flux2_klein")->name() == "FLUX.2");
  check_parity("flux2_dev");
}

TEST_CASE("flux: the spellings of norms, a checkpoint's prefix, and diffusers' names") {
  check_parity("flux_dev", renamed(tiny_tensors({"flux_dev"}), "model.diffusion_model.", "scale"));
  check_parity("flux_diffusers");
}

TEST_CASE("flux: sampling and latents as each kind was trained") {
  auto dev = check_parity("flux_dev"), schnell = check_parity("flux_schnell"),
       klein = check_parity("flux2_klein");
  CHECK(dev->sampling()->is_flow());
  CHECK(dev->sampling()->percent_to_sigma(0.5) ==
        doctest::Approx(std::exp(1.15) / (std::exp(1.15) + 1)));
  CHECK(schnell->sampling()->percent_to_sigma(0.5) == doctest::Approx(0.5));
  CHECK(schnell->sampling()->timestep(0.25f) == doctest::Approx(0.25));
  CHECK(klein->sampling()->percent_to_sigma(0.5) ==
        doctest::Approx(std::exp(2.02) / (std::exp(2.02) + 1)));
  CHECK(dev->latent().channels == 16);
  CHECK(dev->latent().rgb_factors.size() == 16);
  CHECK(klein->latent().channels == 128);
  CHECK(klein->latent().rgb_factors.size() == 128);
  CHECK(klein->latent().downscale == 16);
}

TEST_CASE("flux: what a conditioning is encoded to") {
  TemporaryCheckpoint file(tiny_tensors({"flux_dev"})), fill_file(tiny_tensors({"flux_fill"}));
  auto dev = detect_family(*file), fill = detect_family(*fill_file);
  auto network = dev->make_network();
  auto spec_of = [](const Network& of, const std::string& name) {
    for (const auto& spec : of.inputs())
      if (spec.name == name) return spec;
    FAIL("no input " << name);
    return InputSpec{};
  };
  sampling::EncodeContext context{.noise = at::zeros({2, 16, 4, 6})};
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({1, 5, 24});
  auto encoded = [&](const std::string& name) {
    return dev->encode(spec_of(*network, name), item, context);
  };
  CHECK(encoded("guidance").value.item<float>() == 3.5f);
  item.numbers["guidance"] = 2;
  CHECK(encoded("guidance").value.item<float>() == 2.0f);
  item.numbers["no_guidance"] = 1;
  CHECK_FALSE(encoded("guidance").defined());
  CHECK_FALSE(encoded("concat").defined());
  CHECK_FALSE(encoded("reference_method").defined());
  item.reference_latents = {at::ones({1, 16, 3, 3})};
  item.texts["reference_latents_method"] = "uxo";
  CHECK(encoded("reference_method").number == static_cast<double>(ReferenceMethod::Uxo));
  CHECK(at::allclose(encoded("reference_latents.0").value,
                     at::full({1, 16, 3, 3}, (1 - 0.1159) * 0.3611)));
  CHECK_FALSE(encoded("reference_latents.1").defined());

  // Fill: the picture to keep and a mask of the picture's size.
  auto concat = spec_of(*fill->make_network(), "concat");
  item.tensors["concat_latent_image"] = at::ones({1, 16, 4, 6});
  auto mask = at::zeros({1, 1, 32, 48});
  mask[0][0][9][17] = 1;  // cell 1, 2: pixel 1, 1 of it
  item.tensors["concat_mask"] = mask;
  auto value = fill->encode(concat, item, context).value;
  CHECK((value.sizes() == std::vector<std::int64_t>{2, 80, 4, 6}));
  CHECK(value[0][3][2][2].item<float>() == doctest::Approx((1 - 0.1159) * 0.3611));
  CHECK(value.narrow(1, 16, 64).sum().item<float>() == doctest::Approx(2));
  CHECK(value[1][16 + 9][1][2].item<float>() == 1.0f);
  // The same shape is known without data.
  sampling::EncodeContext blank{.noise = at::empty({2, 16, 4, 6}, at::kMeta)};
  CHECK((fill->encode(concat, item, blank).value.sizes() == value.sizes()));
}

TEST_CASE("flux: FLUX.2 gets its texts at the end of 512 tokens") {
  TemporaryCheckpoint file(tiny_tensors({"flux2_klein"}));
  auto family = detect_family(*file);
  sampling::ConditioningItem item;
  item.cross_attn = at::ones({1, 5, 24});
  InputSpec spec{.name = "context"};
  auto value = family->encode(spec, item, {.noise = at::zeros({1, 128, 2, 2})}).value;
  CHECK((value.sizes() == std::vector<std::int64_t>{1, 512, 24}));
  CHECK(value.sum().item<float>() == 5 * 24);
  CHECK(value[0][511][0].item<float>() == 1.0f);
}

TEST_CASE("flux: blocks that are left out, and inputs that do not fit") {
  TemporaryCheckpoint file(tiny_tensors({"flux_dev"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  Dump dump("flux_dev");
  Inputs inputs{{"x", dump["main/x"]},
                {"timestep", dump["main/timestep"]},
                {"context", dump["main/context"]},
                {"vector", dump["main/y"]}};
  Patches patches;
  patches.skipped = {"double_blocks.1", "single_blocks.0"};
  auto blocks = network->manifest().blocks().size();
  network->apply(inputs, patches);
  CHECK(source.runs.size() == blocks - 6);  // a double block is four, a single one two
  CHECK(source.in_order());
  patches.skipped = {"single_blocks.0", "single_blocks.1"};
  CHECK(network->apply(inputs, patches).sizes() == dump["main/x"].sizes());

  inputs.set("context", at::zeros({2, 5, 25}));
  CHECK_THROWS_WITH_AS(network->apply(inputs), doctest::Contains("text conditioning"), Error);
  inputs.set("context", dump["main/context"]);
  inputs.set("concat", dump["main/x"]);
  inputs.set("reference_latents.0", dump["main/x"]);
  CHECK_THROWS_WITH_AS(network->apply(inputs), doctest::Contains("got both"), Error);
}

TEST_CASE("flux: full sizes are read off shapes") {
  flux::Config dev;
  flux::Flux network(dev);
  auto count = parameters(network.manifest());
  CHECK(count == 11901408320);  // as published: 12B
  auto config = flux::config_of(shapes_only(network.manifest()));
  CHECK(config.depth == 19);
  CHECK(config.single_depth == 38);
  CHECK((config.axes == dev.axes));
  CHECK(config.heads() == 24);
  CHECK(network.manifest().blocks().size() == 4 * 19 + 2 * 38 + 2);
}
