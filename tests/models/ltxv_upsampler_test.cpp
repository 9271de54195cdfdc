#include "distorch/base/error.h"
#include "distorch/models/ltxv_upsampler/upsampler.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using ltxv_upsampler::Upsampler;

TEST_CASE("ltxv upsampler: larger in space and in time as ComfyUI") {
  for (const char* name : {"ltxv_upsampler", "ltxv_upsampler_time"}) {
    CAPTURE(name);
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto part = ltxv_upsampler::part_of(*file);
    Upsampler network(ltxv_upsampler::config_of(part));
    check_complete(network.manifest(), part, "latent upscaler");
    CHECK(network.manifest().weights().size() == part.tensors().size());
    TwiceSource source(network.manifest(), part, at::kFloat);
    auto larger = network.forward(tiny_weight("small", {1, 128, 2, 2, 3}));
    CHECK(difference(larger, Dump(name)["larger"]) < 1e-4);
    CHECK(source.runs.size() == network.manifest().blocks().size());
  }
}

TEST_CASE("ltxv upsampler: both at once, and clips of a batch by themselves") {
  TemporaryCheckpoint file(tiny_tensors({"ltxv_upsampler"}));
  auto part = ltxv_upsampler::part_of(*file);
  Upsampler network(ltxv_upsampler::config_of(part));
  TwiceSource source(network.manifest(), part, at::kFloat);
  auto clip = tiny_weight("small", {1, 128, 2, 2, 3}), other = at::randn_like(clip);
  auto both = network.forward(at::cat({other, clip}));
  CHECK(difference(both.narrow(0, 1, 1), network.forward(clip)) < 1e-5);
  CHECK_THROWS_WITH_AS(network.forward(at::zeros({1, 16, 2, 2, 3})),
                       doctest::Contains("128 channels"), Error);
  Upsampler large({.space = 2, .time = 2});
  auto config = ltxv_upsampler::config_of(shapes_only(large.manifest()));
  CHECK(config.width == 512);
  CHECK(config.blocks == 4);
  CHECK(config.space == 2);
  CHECK(config.time == 2);
}

TEST_CASE("ltxv upsampler: forms that are not LTX-Video's, and files that hold something else") {
  ltxv_upsampler::Config config{.width = 64, .blocks = 1};
  Upsampler network(config);
  auto changed = [&](const char* name, std::vector<std::int64_t> shape) {
    auto file = shapes_only(network.manifest());
    file.add(name, {.dtype = formats::DType::F16, .shape = std::move(shape)});
    return ltxv_upsampler::config_of(ltxv_upsampler::part_of(file));
  };
  CHECK_THROWS_WITH_AS(changed("upsampler.blur_down.kernel", {1, 1, 5, 5}),
                       doctest::Contains("by a fraction"), Error);
  CHECK_THROWS_WITH_AS(changed("initial_conv.weight", {64, 128, 3, 3}),
                       doctest::Contains("looks at single frames"), Error);
  CHECK_THROWS_WITH_AS(changed("upsampler.0.weight", {192, 64, 3, 3}),
                       doctest::Contains("makes 3 cells of one"), Error);
  weights::Checkpoint other;
  other.add("blocks.0.weight", {.dtype = formats::DType::F16, .shape = {4, 4}});
  CHECK(ltxv_upsampler::part_of(other).empty());
}
