#include "distorch/streaming/kernel_loader.h"

#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <map>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/sim/sim.h"
#include "tests/streaming/known_models.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;
using toy::engine_options;
using toy::Known;

namespace {

const std::vector<KernelUse> kUses = {{KernelFamily::Product, at::kFloat},
                                      {KernelFamily::Elementwise, at::kFloat},
                                      {KernelFamily::Product, at::kBFloat16}};

/// Counts what was run on each device.
struct Counts {
  std::mutex mutex;
  std::map<std::string, int> runs;
  KernelLoader::Run run() {
    return [this](c10::Device device, const KernelUse&) {
      std::lock_guard lock(mutex);
      ++runs[device::name_of(device)];
    };
  }
};

/// The process's loader goes back to what it was.
struct Loader {
  Loader(KernelLoader::Run run) { kernel_loader().run_with(std::move(run), true); }
  ~Loader() { kernel_loader().run_with(run_once, false); }
};

}  // namespace

TEST_CASE("kernels are loaded once a device and type, and not where there are none to load") {
  sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
  Counts counts;
  KernelLoader loader(counts.run(), true);
  for (int time = 0; time < 3; ++time)
    for (const char* device : {"sim:0", "sim:1"}) loader.start(device::to_torch(device), kUses);
  loader.wait();
  CHECK(counts.runs == std::map<std::string, int>{{"sim:0", 3}, {"sim:1", 3}});
  Counts none;
  KernelLoader plain(none.run());
  plain.start(at::kCPU, kUses);
  plain.start(device::to_torch("sim:0"), kUses);
  plain.wait();
  CHECK(none.runs.empty());
}

TEST_CASE("what is loaded is told by the shapes of a model's weights") {
  toy::Folder folder;
  toy::Model model(2, 64);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "cpu", .dtype = at::kHalf});
  const auto uses = kernels_of(streamed);
  const auto has = [&](KernelFamily kind) {
    return std::find(uses.begin(), uses.end(), KernelUse{kind, at::kHalf}) != uses.end();
  };
  CHECK(has(KernelFamily::Product));
  CHECK(has(KernelFamily::Attention));
  CHECK(!has(KernelFamily::Convolution2d));
  CHECK(!has(KernelFamily::GroupNorm));
}

TEST_CASE("any device: every kind of kernel runs as it is asked for") {
  for (auto kind : {KernelFamily::Product, KernelFamily::Attention, KernelFamily::LayerNorm,
                    KernelFamily::GroupNorm, KernelFamily::Convolution2d,
                    KernelFamily::Convolution3d, KernelFamily::Elementwise}) {
    CAPTURE(name_of(kind));
    CHECK_NOTHROW(run_once(test::test_device(), {kind, at::kFloat}));
  }
}

TEST_CASE("a model that is opened is prepared and run while its kernels still load, or fail to") {
  toy::Folder folder;
  auto options = engine_options(toy::rig(1, 64 << 20), {});
  std::promise<void> go;
  std::atomic<int> runs{0};
  {
    Loader loader([&, gate = go.get_future().share()](c10::Device, const KernelUse&) {
      gate.wait();
      ++runs;
      throw Error(ErrorKind::Internal, "sim:0", "has no such kernel");
    });
    Engine engine(options);
    Known model(engine, folder, "a");
    model.prepare_and_run();
    CHECK(runs == 0);
    go.set_value();
    kernel_loader().wait();
    CHECK(runs > 0);
    model.prepare_and_run();
    const int before = runs;
    Known again(engine, folder, "b");
    again.prepare_and_run();
    kernel_loader().wait();
    CHECK(runs == before);
  }
}

TEST_CASE("what only plans loads no kernels") {
  toy::Folder folder;
  Counts counts;
  Loader loader(counts.run());
  auto options = engine_options(toy::rig(1, 64 << 20), {});
  options.plan_only = true;
  Engine engine(options);
  Known model(engine, folder, "a");
  kernel_loader().wait();
  CHECK(counts.runs.empty());
}
