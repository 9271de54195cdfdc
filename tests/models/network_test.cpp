#include "distorch/models/network.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/sd/unet.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

/// Inputs of a network of video that takes a number and a picture of a quarter of the size.
InputSpecs video_inputs() {
  const auto batch = Extent::batch();
  return {{.name = "x",
           .meaning = "latent",
           .kind = InputSpec::Kind::NoiseShape,
           .shape = {batch, Extent::number(16), Extent::cells()},
           .source = InputSpec::Source::Sampler},
          {.name = "text",
           .meaning = "text conditioning",
           .kind = InputSpec::Kind::CrossAttn,
           .shape = {batch, Extent::tokens(), Extent::number(8)}},
          {.name = "frame_rate", .meaning = "frames a second", .kind = InputSpec::Kind::Constant},
          {.name = "hint",
           .meaning = "control picture",
           .shape = {batch, Extent::number(3), Extent::cells(4)},
           .optional = true}};
}

sd::UNetConfig small_unet() {
  sd::UNetConfig c;
  c.model_channels = 32;
  c.time_width = 64;
  c.context_width = 48;
  c.channels = {32, 64};
  c.res_blocks = {1, 1};
  c.depth_in = {1, 1};
  c.depth_out = {1, 1, 1, 1};
  return c;
}

struct SmallUNet {
  SmallUNet()
      : network(small_unet()), source(network.manifest(), [](const weights::Declared& w) {
          return tiny_weight(w.name, w.shape);
        }) {}
  sd::UNet network;
  TwiceSource source;
  Inputs inputs{{"x", at::randn({2, 4, 7, 6})},
                {"timestep", at::full({2}, 11.0)},
                {"context", at::randn({2, 5, 48})}};
};

}  // namespace

TEST_CASE("inputs: shapes follow from the sizes of a call, pictures and video alike") {
  auto specs = video_inputs();
  CallSizes sizes{2, {5, 9, 6}, 77};
  CHECK(shape_of(specs[0], sizes) == std::vector<std::int64_t>{2, 16, 5, 9, 6});
  CHECK(shape_of(specs[1], sizes) == std::vector<std::int64_t>{2, 77, 8});
  CHECK(shape_of(specs[3], sizes) == std::vector<std::int64_t>{2, 3, 2, 3, 2});

  auto blank = blank_inputs(specs, sizes, at::kMeta);
  check_inputs(specs, blank);
  CHECK_FALSE(blank.has("hint"));
  CHECK(blank.has("frame_rate"));
  CHECK(blank_inputs(specs, sizes, at::kMeta, {"hint"})["hint"].dim() == 5);
}

TEST_CASE("inputs: what is missing or of another shape is named in the user's words") {
  auto specs = video_inputs();
  auto good = blank_inputs(specs, {1, {4, 8, 8}, 3}, at::kCPU);
  auto refuses = [&](const Inputs& inputs, const char* words) {
    CHECK_THROWS_WITH_AS(check_inputs(specs, inputs), doctest::Contains(words), Error);
  };
  auto wrong = good;
  wrong.set("text", at::zeros({1, 3, 9}));
  refuses(wrong, "takes a text conditioning ('text') of [batch, tokens, 8], got [1, 3, 9]");
  wrong = good;
  wrong.set("text", at::zeros({3, 8}));
  refuses(wrong, "got [3, 8]");
  wrong.set("text", {});
  refuses(wrong, "('text') of [batch, tokens, 8], got none");
  Inputs without{{"x", good["x"]}, {"text", good["text"]}};
  refuses(without, "takes a number as frames a second ('frame_rate'), got none");
  without.set("frame_rate", at::zeros({1}));
  refuses(without, "got a tensor");
}

TEST_CASE("inputs: a recording's order is that of the specs, and numbers belong to its key") {
  auto specs = video_inputs();
  Inputs call;
  call.set_number("frame_rate", 24);
  call.set("text", at::ones({1, 3, 8}));
  call.set("x", at::zeros({1, 16, 1, 2, 2}));
  auto tensors = in_order(specs, call);
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].is_same(call["x"]));
  CHECK(tensors[1].is_same(call["text"]));
  CHECK_FALSE(tensors[2].defined());
  auto back = from_order(specs, tensors, call);
  CHECK(back["text"].is_same(call["text"]));
  CHECK(back.number("frame_rate", 0) == 24);
  auto other = call;
  other.set_number("frame_rate", 25);
  CHECK(inputs_key(call) != inputs_key(other));
}

TEST_CASE("patches: equal values have one key, others another") {
  Patches none, freed{.free_u = {{.b1 = 1.3}}}, skips{.skipped = {"middle_block"}};
  CHECK(none.key() == "");
  CHECK(none.empty());
  CHECK(freed.key() == Patches{.free_u = {{.b1 = 1.3}}}.key());
  CHECK(freed.key() != Patches{.free_u = {{.version = 2, .b1 = 1.3}}}.key());
  CHECK(freed.key() != skips.key());
  CHECK(Patches{.free_u = {{.b1 = 1.3}, {.b1 = 1.3}}}.key() != freed.key());
}

TEST_CASE("UNet: a skipped stage goes without its transformer") {
  SmallUNet small;
  auto plain = small.network.apply(small.inputs);
  auto skipped = small.network.apply(small.inputs, {.skipped = {"output_blocks.1"}});
  CHECK(difference(skipped, plain) > 1e-3);
  // The same as a transformer whose last projection gives nothing.
  auto& manifest = small.network.manifest();
  for (std::size_t i = 0; i < manifest.weights().size(); ++i)
    if (manifest.weights()[i].name.starts_with("output_blocks.1.1.proj_out"))
      manifest.slot(i).value = at::zeros(manifest.weights()[i].shape);
  CHECK(difference(small.network.apply(small.inputs), skipped) < 1e-6);
}

TEST_CASE("UNet: what a ControlNet gives is added where it belongs") {
  SmallUNet small;
  auto plain = small.network.apply(small.inputs);
  for (const auto& spec : small.network.inputs()) {
    if (spec.source != InputSpec::Source::Control) continue;
    CAPTURE(spec.name);
    auto inputs = small.inputs;
    auto shape = shape_of(spec, {2, {7, 6}, 5});
    inputs.set(spec.name, at::zeros(shape));
    CHECK(at::equal(small.network.apply(inputs), plain));
    inputs.set(spec.name, at::ones(shape));
    std::map<std::string, Tensor> seen, seen_plain;
    small.network.apply(inputs, {}, [&](auto& stage, auto& t) { seen[stage] = t.clone(); });
    small.network.apply(small.inputs, {},
                        [&](auto& stage, auto& t) { seen_plain[stage] = t.clone(); });
    auto number = spec.name.substr(spec.name.find('.') + 1);
    if (spec.name == "control_middle")
      CHECK(difference(seen["middle_block"], seen_plain["middle_block"] + 1) < 1e-6);
    else if (spec.name.starts_with("control_input"))
      CHECK(difference(seen["input_blocks." + number], seen_plain["input_blocks." + number] + 1) <
            1e-6);
    else
      // It reaches the way up only: there where the skip connection of that block arrives.
      CHECK(at::equal(seen["middle_block"], seen_plain["middle_block"]));
    auto last = 3 - (spec.name.starts_with("control_output") ? std::stoi(number) : 3);
    CHECK_FALSE(at::equal(seen[fmt::format("output_blocks.{}", last)],
                          seen_plain[fmt::format("output_blocks.{}", last)]));
  }
}
