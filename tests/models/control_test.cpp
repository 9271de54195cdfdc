#include "distorch/models/control/control.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/adapter.h"
#include "distorch/models/control/control_net.h"
#include "distorch/models/sd/unet.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using at::Tensor;
using models::Inputs;
using models::control::Place;

namespace {

/// A network of the reference's weights, open.
struct Opened {
  explicit Opened(const std::string& dump)
      : file(tiny_tensors({dump})),
        part(models::control::control_part(*file)),
        network(models::control::make_control(part)) {
    check_complete(network->manifest(), part, "ControlNet");
    CHECK(network->manifest().weights().size() == part.tensors().size());
    source = std::make_unique<TwiceSource>(network->manifest(), part, at::kFloat);
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  std::unique_ptr<models::control::ControlNetwork> network;
  std::unique_ptr<TwiceSource> source;
};

void compare(const Dump& dump, const std::string& prefix,
             const models::control::ControlNetwork& network, const Inputs& residuals) {
  const auto& places = network.places();
  CHECK(residuals.tensors().size() == places.size());
  REQUIRE(dump.has(fmt::format("{}out/{}", prefix, places.size() - 1)));
  CHECK_FALSE(dump.has(fmt::format("{}out/{}", prefix, places.size())));
  for (std::size_t i = 0; i < places.size(); ++i) {
    CAPTURE(i);
    CHECK(difference(residuals[name_of(places[i])], dump[fmt::format("{}out/{}", prefix, i)]) <
          1e-4);
  }
}

Inputs inputs_of(const Dump& dump) {
  Inputs inputs = {{"x", dump["x"]}, {"timestep", dump["timesteps"]}, {"context", dump["context"]}};
  if (dump.has("vector")) inputs.set("vector", dump["vector"]);
  return inputs;
}

Inputs run(const models::control::ControlNetwork& network, const Dump& dump,
           std::optional<int> type = {}) {
  auto inputs = inputs_of(dump);
  auto encoded = network.encode(dump["hint"], type);
  for (const auto& [name, value] : encoded.tensors()) inputs.set(name, value);
  return network.residuals(network.apply(inputs), inputs["x"].sizes());
}

void check_control_net(const std::string& name, int stages) {
  Dump dump(name);
  Opened opened(name);
  compare(dump, "", *opened.network, run(*opened.network, dump));
  const auto& places = opened.network->places();
  CHECK(places.size() == static_cast<std::size_t>(stages) + 1);
  CHECK(models::control::name_of(places.front()) == "control_output.0");
  CHECK(places[stages - 1] == Place{Place::At::Skip, stages - 1});
  CHECK(models::control::name_of(places.back()) == "control_middle");
  CHECK(opened.source->runs.size() == opened.network->manifest().blocks().size());
}

std::vector<std::string> check_adapter(const std::string& name) {
  Dump dump(name);
  Opened opened(name);
  CHECK(opened.network->inputs().empty());
  compare(dump, "", *opened.network, opened.network->encode(dump["hint"], {}));
  CHECK(opened.source->runs.size() == opened.network->manifest().blocks().size());
  std::vector<std::string> names;
  for (const auto& place : opened.network->places())
    names.push_back(models::control::name_of(place));
  return names;
}

}  // namespace

TEST_CASE("ControlNet: residuals of a tiny SD 1.x network inside a checkpoint, as ComfyUI's") {
  check_control_net("control_sd1", 12);
}
TEST_CASE("ControlNet: residuals of a tiny SD 2.x network with diffusers names, as diffusers'") {
  check_control_net("control_sd2", 12);
}
TEST_CASE("ControlNet: residuals of a tiny SDXL network with diffusers names, as diffusers'") {
  check_control_net("control_xl", 9);
}

TEST_CASE("ControlNet: a union's kinds of control, told and not told") {
  Dump dump("control_union");
  Opened opened("control_union");
  CHECK(opened.network->control_types() == 6);
  compare(dump, "auto/", *opened.network, run(*opened.network, dump));
  compare(dump, "depth/", *opened.network, run(*opened.network, dump, 1));
  compare(dump, "segment/", *opened.network, run(*opened.network, dump, 5));
  CHECK_THROWS_WITH_AS(
      run(*opened.network, dump, 7),
      "ControlNet: knows the first 6 kinds of control only, not 'repaint': larger union networks "
      "(\"ProMax\") know more",
      Error);
}

TEST_CASE("ControlNet: one hint serves a whole batch") {
  Dump dump("control_sd1");
  Opened opened("control_sd1");
  auto hint = dump["hint"];
  hint[1].copy_(hint[0]);
  auto input = inputs_of(dump);
  auto guide = opened.network->encode(hint, {})["guide"];
  input.set("guide", guide);
  auto both = opened.network->apply(input);
  input.set("guide", guide.narrow(0, 0, 1));
  CHECK(difference(opened.network->apply(input), both) < 1e-6);
}

TEST_CASE("ControlNet: inputs of another model are refused in words") {
  Dump dump("control_xl");
  Opened opened("control_xl");
  CHECK_THROWS_WITH_AS(opened.network->encode(at::zeros({1, 4, 32, 32}), {}),
                       "ControlNet: takes hints of 3 channels, got 4", Error);
  auto good = inputs_of(dump);
  good.set("guide", opened.network->encode(dump["hint"], {})["guide"]);
  auto deep = good, wide = good, plain = good;
  deep.set("x", at::zeros({2, 16, 4, 6}));
  wide.set("context", at::zeros({2, 5, 64}));
  plain.set("vector", Tensor());
  CHECK_THROWS_WITH_AS(opened.network->apply(deep),
                       doctest::Contains("ControlNet: takes a latent ('x') of [batch, 4, cells]"),
                       Error);
  CHECK_THROWS_WITH_AS(opened.network->apply(wide),
                       doctest::Contains("[batch, tokens, 96], got [2, 5, 64]: it belongs to"),
                       Error);
  CHECK_THROWS_WITH_AS(opened.network->apply(plain), doctest::Contains("[batch, 72], got none"),
                       Error);
}

TEST_CASE("ControlNet: the size of the real one, told by shapes alone") {
  models::control::ControlNetConfig config;
  config.encoder.channels = {320, 640, 1280, 1280};
  config.encoder.res_blocks = {2, 2, 2, 2};
  config.encoder.depth_in = {1, 1, 1, 1, 1, 1, 0, 0};
  config.encoder.out_channels = 0;
  config.hint_widths = {3, 16, 16, 32, 32, 96, 96, 256, 320};
  models::control::ControlNet network(config);
  CHECK(parameters(network.manifest()) == 361'279'120);
  auto read = models::control::control_net_config(shapes_only(network.manifest()));
  CHECK(read.hint_widths == config.hint_widths);
  CHECK(read.encoder.depth_in == config.encoder.depth_in);
  CHECK(read.encoder.context_width == 768);
  CHECK(read.types == 0);
}

TEST_CASE("T2I-adapter: features as ComfyUI's and diffusers', at odd sizes too") {
  using Names = std::vector<std::string>;
  Names levels = {"control_input.2", "control_input.5", "control_input.8", "control_input.11"};
  CHECK(check_adapter("adapter_sd1") == levels);
  CHECK(check_adapter("adapter_light") == levels);
  CHECK(check_adapter("adapter_xl") ==
        Names{"control_input.3", "control_input.5", "control_input.8", "control_middle"});
}

TEST_CASE("T2I-adapter: what a hint must be") {
  Opened gray("adapter_sd1"), large("adapter_xl");
  CHECK(gray.network->hint().channels == 1);
  CHECK(gray.network->hint().multiple == 8);
  CHECK(large.network->hint().channels == 3);
  CHECK(large.network->hint().multiple == 16);
  CHECK_THROWS_WITH_AS(gray.network->encode(at::zeros({1, 3, 64, 64}), {}),
                       "T2I-adapter: takes hints of 1 channels, got 3", Error);
}

TEST_CASE("T2I-adapter: light ones with diffusers names") {
  weights::Checkpoint theirs;
  for (const char* end : {"weight", "bias"}) {
    theirs.add(std::string("adapter.body.1.in_conv.") + end, {.shape = {16, 32, 1, 1}});
    theirs.add(std::string("adapter.body.1.resnets.2.block1.") + end, {.shape = {16, 16, 3, 3}});
    theirs.add(std::string("adapter.body.0.resnets.0.block1.") + end, {.shape = {8, 8, 3, 3}});
  }
  auto ours = models::control::with_original_adapter_names(theirs);
  CHECK(ours.has("body.1.body.2.block1.weight"));
  CHECK(ours.has("body.1.in_conv.bias"));
  CHECK(ours.tensors().size() == theirs.tensors().size());
}

TEST_CASE("files that hold no ControlNet are told apart") {
  TemporaryCheckpoint unet(tiny_tensors({"unet_sd1"}));
  CHECK(models::control::control_part(*unet).empty());
  CHECK_THROWS_WITH_AS(models::control::make_control(*unet),
                       doctest::Contains("holds no ControlNet or T2I-adapter"), Error);
  weights::Checkpoint marked;
  CHECK(models::control::stored_as(marked) == models::control::Stored::Whole);
  marked.add("difference", {});
  CHECK(models::control::stored_as(marked) == models::control::Stored::Difference);
  marked.add("lora_controlnet", {});
  CHECK(models::control::stored_as(marked) == models::control::Stored::LowRank);
}
