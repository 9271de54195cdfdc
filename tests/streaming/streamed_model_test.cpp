#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <fstream>

#include "distorch/base/error.h"
#include "distorch/device/sim/sim.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 9;
constexpr std::int64_t width = 64;
constexpr std::int64_t block_bytes = (width * width + width) * 4;

at::Tensor input() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  return at::randn({5, width}, generator);
}

/// Output of the plain model: all weights in place on the CPU.
at::Tensor expected(toy::Folder& folder, at::ScalarType dtype = at::kFloat) {
  toy::Model model(blocks, width);
  auto checkpoint = folder.write(model, dtype);
  weights::PlainSource source(model.manifest(), checkpoint, at::kFloat);
  return model.forward(model.forward(input()));
}

at::Tensor run_with(toy::Folder& folder, const std::vector<BlockHome>& homes,
                    const std::string& compute, at::ScalarType dtype = at::kFloat) {
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model, dtype),
                         {.name = "toy", .compute = compute});
  streamed.load(homes);
  auto device = at::Device(compute);
  return model.forward(model.forward(input().to(device))).cpu();
}

std::vector<BlockHome> all(How how, const std::string& device) {
  return std::vector<BlockHome>(blocks, {how, device});
}

}  // namespace

TEST_CASE("cpu: resident in the mapping, converted and streamed from disk give the same numbers") {
  toy::Folder folder;
  auto plain = expected(folder);
  CHECK(at::equal(run_with(folder, all(How::Resident, "cpu"), "cpu"), plain));
  CHECK(at::equal(run_with(folder, all(How::Streamed, "disk"), "cpu"), plain));
  auto half = expected(folder, at::kHalf);
  CHECK(at::equal(run_with(folder, all(How::Resident, "cpu"), "cpu", at::kHalf), half));
  CHECK(at::equal(run_with(folder, all(How::Streamed, "disk"), "cpu", at::kHalf), half));
  CHECK_FALSE(at::equal(half, plain));
}

TEST_CASE("sim: every placement gives the bits of the resident one, also without registration") {
  toy::Folder folder;
  auto plain = expected(folder);
  for (std::int64_t registration_limit : {-1, 0}) {
    sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
    sim::refuse_registration_after(registration_limit);
    CHECK(at::equal(run_with(folder, all(How::Resident, "sim:0"), "sim:0"), plain));
    CHECK(at::equal(run_with(folder, all(How::Streamed, "cpu"), "sim:0"), plain));
    CHECK(at::equal(run_with(folder, all(How::Streamed, "disk"), "sim:0"), plain));
    CHECK(at::equal(run_with(folder, all(How::Streamed, "sim:1"), "sim:0"), plain));
    CHECK(at::equal(run_with(folder, all(How::OnDonor, "sim:1"), "sim:0"), plain));
    std::vector<BlockHome> mixed;
    const BlockHome kinds[] = {{How::Resident, "sim:0"},
                               {How::Streamed, "cpu"},
                               {How::Streamed, "sim:1"},
                               {How::OnDonor, "sim:1"}};
    for (int i = 0; i < blocks; ++i) mixed.push_back(kinds[i % 4]);
    CHECK(at::equal(run_with(folder, mixed, "sim:0"), plain));
  }
  sim::refuse_registration_after(-1);
}

TEST_CASE("each wait of the ring is needed: the race check catches its removal") {
  toy::Folder folder;
  auto run = [&](RingWaits waits, bool registered) {
    sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
    // Room for the two staging buffers, not for the file.
    sim::refuse_registration_after(registered ? -1 : 4 * block_bytes);
    toy::Model model(blocks, width);
    StreamedModel streamed(model.manifest(), folder.write(model),
                           {.name = "toy", .compute = "sim:0", .waits = waits});
    streamed.load(all(How::Streamed, "cpu"));
    auto x = input().to(at::Device("sim:0"));
    for (int step = 0; step < 2; ++step) x = model.forward(x);
    x.cpu();
  };
  CHECK_NOTHROW(run({}, true));
  CHECK_NOTHROW(run({}, false));
  CHECK_THROWS(run({.copy_after_compute = false}, true));
  CHECK_THROWS(run({.compute_after_copy = false}, true));
  CHECK_THROWS(run({.copy_after_compute = false}, false));
  CHECK_THROWS(run({.compute_after_copy = false}, false));
  CHECK_THROWS(run({.host_after_copy = false}, false));
  sim::refuse_registration_after(-1);
}

TEST_CASE("out of memory: weights make room and the block is repeated") {
  toy::Folder folder;
  auto plain = expected(folder);
  sim::install(toy::rig(1, 20 * block_bytes), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  streamed.load(all(How::Resident, "sim:0"));
  streamed.make_room = [&](const std::string&, std::int64_t bytes) {
    return streamed.shrink(bytes) > 0;
  };
  auto x = input().to(at::Device("sim:0"));
  sim::fail_allocation(0, 6);
  CHECK(at::equal(model.forward(model.forward(x)).cpu(), plain));
  CHECK(std::any_of(streamed.homes().begin(), streamed.homes().end(),
                    [](const BlockHome& home) { return home.how == How::Streamed; }));
}

TEST_CASE("a donor that vanishes ends the run with its name") {
  toy::Folder folder;
  sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  streamed.load(all(How::Streamed, "sim:1"));
  auto x = input().to(at::Device("sim:0"));
  model.forward(x);
  sim::fail_device(1);
  CHECK_THROWS_WITH_AS(model.forward(x), doctest::Contains("sim:1"), std::exception);
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
}

TEST_CASE("a file cut short while in use fails the run, not the process") {
  toy::Folder folder;
  for (auto home : {BlockHome{How::Resident, "cpu"}, BlockHome{How::Streamed, "disk"}}) {
    toy::Model model(blocks, width);
    StreamedModel streamed(model.manifest(), folder.write(model),
                           {.name = "toy", .compute = "cpu"});
    streamed.load(std::vector<BlockHome>(blocks, home));
    std::filesystem::resize_file(folder.path() / "toy.safetensors", 4096);
    try {
      for (int step = 0; step < 3; ++step) model.forward(input());
      FAIL("a cut file was believed");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Format);
      CHECK(error.where().find("toy.safetensors") != std::string::npos);
    }
  }
}

TEST_CASE("a ring whose second slot finds no room works with one") {
  toy::Folder folder;
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  auto taken = at::empty({(std::int64_t{1} << 22) - 2 * block_bytes + 1024},
                         at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0")));
  streamed.load(all(How::Streamed, "cpu"));
  CHECK(streamed.device_bytes("sim:0") < 2 * block_bytes);
  CHECK(streamed.loaded());
}
