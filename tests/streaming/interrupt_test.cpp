#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"
#include "tests/support/interrupting_source.h"

// How soon an interrupt stops a model: the block that computes ends, no other one begins.
using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 9;
constexpr std::int64_t width = 64;

std::vector<BlockHome> homes(const std::string& device, const std::vector<How>& ways) {
  std::vector<BlockHome> list;
  for (int i = 0; i < blocks; ++i) {
    auto how = ways[static_cast<std::size_t>(i) % ways.size()];
    list.push_back({how, how == How::Resident ? device : "cpu"});
  }
  return list;
}

}  // namespace

TEST_CASE("any device: after an interrupt no further block begins, wherever the blocks rest") {
  auto device = test::test_device_name();
  if (device.rfind("sim", 0) == 0) sim::install(test::small_rig());
  toy::Folder folder;
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = device, .dtype = at::kFloat});
  auto x = at::ones({3, width}).to(device::to_torch(device));
  const std::vector<std::vector<How>> placements = {{How::Resident},
                                                    {How::Streamed},
                                                    {How::OnDonor},
                                                    {How::Resident, How::Streamed, How::OnDonor}};
  for (const auto& ways : placements) {
    streamed.load(homes(device, ways));
    auto want = model.forward(x).cpu();
    for (int stop_in : {0, 1, 4, blocks - 1}) {
      CAPTURE(stop_in);
      test::InterruptingSource source(streamed, stop_in);
      {
        RunScope run(std::make_shared<RunToken>());
        // A second step follows, as in a sampler that has not looked.
        CHECK_THROWS_AS(model.forward(model.forward(x)), Error);
      }
      CHECK(source.begun == stop_in + 1);
      CHECK(source.ended == stop_in + 1);
    }
    CHECK(at::equal(model.forward(x).cpu(), want));
  }
}
