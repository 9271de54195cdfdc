#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <fstream>

#include "distorch/base/error.h"
#include "distorch/device/kind.h"
#include "distorch/device/sim/sim.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/faults.h"
#include "tests/support/plain_source.h"
#include "tests/support/poison.h"

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
  test::PlainSource source(model.manifest(), checkpoint, at::kFloat);
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
    CHECK(at::equal(run_with(folder, all(How::OnDonor, "cpu"), "sim:0"), plain));
    CHECK(at::equal(run_with(folder, all(How::OnDonor, "sim:1"), "cpu"), plain));
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
  auto run = [&](sim::Waits lost, bool registered) {
    sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
    // Room for the two staging buffers, not for the file.
    sim::refuse_registration_after(registered ? -1 : 4 * block_bytes);
    toy::Model model(blocks, width);
    StreamedModel streamed(model.manifest(), folder.write(model),
                           {.name = "toy", .compute = "sim:0"});
    auto x = input().to(at::Device("sim:0"));
    sim::lose_waits(lost);
    streamed.load(all(How::Streamed, "cpu"));
    for (int step = 0; step < 2; ++step) x = model.forward(x);
    x.cpu();
  };
  for (bool registered : {true, false}) {
    CHECK_NOTHROW(run(sim::Waits::None, registered));
    for (auto lost : {sim::Waits::OfComputeForOthers, sim::Waits::OfOthersForCompute})
      CHECK_THROWS_WITH(run(lost, registered), doctest::Contains("a race"));
  }
  CHECK_THROWS_WITH(run(sim::Waits::OfHostForEvents, false), doctest::Contains("a race"));
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

TEST_CASE("out of memory: a block is repeated as long as something makes way, a little each time") {
  toy::Folder folder;
  auto plain = expected(folder);
  sim::install(toy::rig(1, 20 * block_bytes), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  streamed.load(all(How::Resident, "sim:0"));
  auto x = input().to(at::Device("sim:0"));
  // Others hold all that is left, and give it back in pieces that are too small by themselves.
  std::vector<at::Tensor> others;
  auto options = at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0"));
  while (sim::memory(0).in_use + 1024 <= sim::memory(0).total)
    others.push_back(at::empty({1024}, options));
  int asked = 0;
  streamed.make_room = [&](const std::string& device, std::int64_t) {
    CHECK(device == "sim:0");
    ++asked;
    if (others.empty()) return false;
    others.pop_back();
    return true;
  };
  CHECK(at::equal(model.forward(model.forward(x)).cpu(), plain));
  CHECK(asked >= 4);
}

TEST_CASE("out of memory between blocks and around a recorded step makes room as within a block") {
  toy::Folder folder;
  for (bool recorded : {false, true})
    for (int nth = 1; nth < 60; ++nth) {
      sim::install(toy::rig(1, 40 * block_bytes), sim::Mode::Exec);
      toy::Model model(blocks, width);
      StreamedModel streamed(model.manifest(), folder.write(model),
                             {.name = "toy", .compute = "sim:0"});
      streamed.load(all(How::Resident, "sim:0"));
      streamed.record_steps(recorded);
      streamed.make_room = [&](const std::string&, std::int64_t bytes) {
        return streamed.shrink(bytes) > 0;
      };
      auto x = input().to(at::Device("sim:0"));
      auto step = [&] {
        return streamed
            .step({x},
                  [&](const std::vector<at::Tensor>& in) { return model.forward(in[0] * 0.5) * 2; })
            .cpu();
      };
      auto want = step();
      sim::fail_allocation(0, nth);
      for (int i = 0; i < 3; ++i) CHECK(at::equal(step(), want));
      CHECK_FALSE(sim::fault_pending(0));
    }
}

TEST_CASE("uploads are finished also where the first block never runs") {
  toy::Folder folder;
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0", .upload_from_bytes = 0});
  auto threads = test::thread_count();
  streamed.load(all(How::Resident, "sim:0"));
  auto x = input().to(at::Device("sim:0"));
  // Its second half alone, as a decoder runs.
  for (int block = blocks / 2; block < blocks; ++block)
    streamed.run(block, {x}, [](const weights::Tensors& in) { return in; });
  CHECK(test::threads_back_to(threads));
  CHECK(sim::registered_bytes() == 0);
}

TEST_CASE("a failed upload leaves the model unloaded, and the next load brings everything") {
  toy::Folder folder;
  auto plain = expected(folder);
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0", .upload_from_bytes = 0});
  auto x = input().to(at::Device("sim:0"));
  auto step = [&] {
    streamed.load(all(How::Resident, "sim:0"));
    return model.forward(model.forward(x)).cpu();
  };
  for (int nth = 1; nth <= 2 * blocks; ++nth) {
    test::fail_call(test::Call::Read, nth);
    CHECK_THROWS_WITH_AS(step(), doctest::Contains("toy.safetensors"), Error);
    CHECK_FALSE(streamed.loaded());
    CHECK(streamed.device_bytes("sim:0") == 0);
    CHECK(at::equal(step(), plain));
    streamed.unload();
  }
}

TEST_CASE("a replay whose block comes to lie elsewhere is noticed") {
  // Keeps what is done aside, as a recorder of real operations does.
  struct Recorder final : device::Recorder {
    void aside(const std::function<void()>& action) override {
      actions.push_back(action);
      action();
    }
    std::vector<std::function<void()>> actions;
  };
  toy::Folder folder;
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  streamed.load(all(How::Streamed, "cpu"));
  auto x = input().to(at::Device("sim:0"));
  for (int i = 0; i < 4; ++i) model.forward(x);
  Recorder recorder;
  {
    device::RecorderScope scope(recorder);
    model.forward(x);
  }
  // Two steps later a nine of two slots lies as it did.
  model.forward(x);
  for (const auto& action : recorder.actions) CHECK_NOTHROW(action());
  // A step that leaves blocks out shifts the places of those that follow.
  for (int block : {0, 3, 4})
    streamed.run(block, {x}, [](const weights::Tensors& in) { return in; });
  CHECK_THROWS_AS(for (const auto& action : recorder.actions) action(), Moved);
  streamed.unload();
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

TEST_CASE("LoRAs that go leave their memory at once, wherever their blocks rest") {
  toy::Folder folder;
  sim::install(toy::rig(2, 64 * block_bytes), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  auto adapters = folder.write_lora(model, 8);
  std::vector<BlockHome> homes;
  for (int i = 0; i < blocks; ++i)
    homes.push_back(i % 2 ? BlockHome{How::OnDonor, "sim:1"} : BlockHome{How::Resident, "sim:0"});
  auto in_use = [](int device) {
    sim::finish();
    return sim::memory(device).in_use;
  };
  streamed.load(homes);
  const std::int64_t before[] = {in_use(0), in_use(1)};
  streamed.set_loras({{"a", adapters, 1.0}});
  streamed.load(homes);
  model.forward(input().to(at::Device("sim:0")));
  for (int device : {0, 1}) CHECK(in_use(device) > before[device]);
  streamed.set_loras({});
  for (int device : {0, 1}) CHECK(in_use(device) == before[device]);
  streamed.load(homes);
  CHECK(at::equal(model.forward(model.forward(input().to(at::Device("sim:0")))).cpu(),
                  expected(folder)));
}
