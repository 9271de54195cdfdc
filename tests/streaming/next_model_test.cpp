// What runs next: planned with what runs now, on its way while that runs.
#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/formats/mapped_file.h"
#include "distorch/streaming/engine_watch.h"
#include "tests/streaming/known_models.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;
using toy::engine_options;
using toy::Known;

namespace {

constexpr std::int64_t kBlock = (128 * 128 + 128) * 4;

/// A run of two models, of whom the first knows of the second. The memory is shared where they are
/// used for a few steps only; for many each replaces the other.
struct Pair {
  explicit Pair(std::int64_t budget_blocks, double steps = 10, PlacementRequest request = {})
      : steps(steps),
        engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", budget_blocks * kBlock}})),
        high(engine, folder, "high", request),
        low(engine, folder, "low", request) {}

  Engine::Use prepare() {
    Engine::Wanted next{low.weights, needs(low)};
    return std::move(engine.prepare({{high.weights, needs(high)}}, &next).front());
  }
  Engine::Use prepare_low() { return engine.prepare(low.weights, needs(low)); }
  RunNeeds needs(Known& model) const {
    auto needs = model.needs();
    needs.steps = steps;
    return needs;
  }
  /// One step of the first model, as a sampler makes it.
  at::Tensor step() {
    auto x = at::ones({5, 128}).to(at::Device("sim:0"));
    return high.weights
        ->step({x}, [&](const std::vector<at::Tensor>& in) { return high.model.forward(in[0]); })
        .cpu();
  }
  /// Waits until the second is there; false where it does not come within that time.
  bool comes(std::chrono::milliseconds patience = std::chrono::milliseconds(20000)) const {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < end) {
      for (const auto& model : engine_watch().state().models)
        if (model.model == "low") return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  double steps;
  toy::Folder folder;
  Engine engine;
  Known high, low;
  std::shared_ptr<RunToken> token = std::make_shared<RunToken>();
  RunScope run{token};
};

constexpr std::chrono::milliseconds kNever(60);

/// What the second one gives where nobody else is.
at::Tensor low_alone() {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  return Known(engine, folder, "low").prepare_and_run();
}

}  // namespace

TEST_CASE("next model: it is there before its first step, which moves no weights") {
  for (auto [budget, steps] : {std::pair{25, 10}, std::pair{14, 1}}) {
    CAPTURE(budget);
    Pair pair(budget, steps);
    {
      auto use = pair.prepare();
      pair.step();
      // The first one's weights come first.
      CHECK_FALSE(pair.comes(kNever));
      pair.step();
      CHECK(pair.comes());
    }
    CHECK(pair.low.profiles == 1);
    sim::finish();
    const auto reused = engine_watch().state().counts.reused;
    const auto before = sim::work(0).bytes_in;
    auto use = pair.prepare_low();
    CHECK(pair.low.profiles == 1);
    CHECK(engine_watch().state().counts.reused == reused + 1);
    pair.low.run();
    const auto moved = sim::work(0).bytes_in - before;
    const auto streams = pair.low.weights->total_file_bytes() - [&] {
      std::int64_t rests = 0;
      for (int i = 0; i < pair.low.size.blocks; ++i) rests += pair.low.weights->resting_bytes(i);
      return rests;
    }();
    CHECK((budget == 25) == (streams == 0));
    // The input, and twice what streams: for the next step some is on its way.
    CHECK(moved <= 4096 + 2 * streams);
    CHECK(sim::memory(0).peak <= budget * kBlock);
  }
}

TEST_CASE("next model: results are those of models that know nothing of each other") {
  const auto low = low_alone();
  Pair pair(14, 1);
  auto use = pair.prepare();
  auto high = pair.step();
  CHECK(at::equal(pair.step(), high));
  CHECK(pair.comes());
  CHECK(at::equal(pair.step(), high));
  use = {};
  use = pair.prepare_low();
  CHECK(at::equal(pair.low.run(), low));
  // Both again, the second one in place already.
  use = {};
  use = pair.prepare();
  CHECK(at::equal(pair.step(), high));
  CHECK(pair.high.profiles == 1);
  CHECK(pair.low.profiles == 1);
}

TEST_CASE("next model: where each needs the room of the other, its file is read ahead") {
  Pair pair(14);
  const auto path = pair.folder.path() / "low.safetensors";
  const int written = ::open(path.c_str(), O_RDONLY);
  REQUIRE(::fsync(written) == 0);
  ::close(written);
  auto file = formats::MappedFile::open(path);
  const formats::ByteRange all{0, file->size()};
  auto use = pair.prepare();
  pair.step();
  file->evict(all);
  const bool can_be_evicted = file->resident_bytes(all) < file->size() / 2;
  pair.step();
  CHECK_FALSE(pair.comes(kNever));
  CHECK(sim::memory(0).peak <= 14 * kBlock);
  for (int i = 0; i < 1000 && can_be_evicted && file->resident_bytes(all) < file->size() / 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(file->resident_bytes(all) >= file->size() / 2);
  MESSAGE("pages could be evicted here: " << can_be_evicted);
}

TEST_CASE("next model: with an allocation of its own it comes where it fits beside the first") {
  for (std::int64_t budget : {26, 14}) {
    CAPTURE(budget);
    Pair pair(budget, 10, {.allocation = "sim:0,90%;cpu,*"});
    auto use = pair.prepare();
    pair.step();
    pair.step();
    CHECK(pair.comes(budget > 20 ? std::chrono::milliseconds(20000) : kNever) == (budget > 20));
    use = {};
    pair.low.prepare_and_run();
    CHECK(sim::memory(0).peak <= budget * kBlock);
  }
}

TEST_CASE("next model: an interrupt or an error of the first leaves it whole or away") {
  const auto low = low_alone();
  Pair pair(25);
  {
    auto use = pair.prepare();
    pair.step();
    pair.token->interrupt();
    CHECK_THROWS_AS(pair.step(), Error);
  }
  CHECK_FALSE(pair.comes(kNever));
  CHECK_FALSE(pair.low.loaded());
  RunScope again(std::make_shared<RunToken>());
  CHECK(at::equal(pair.low.prepare_and_run(), low));
}

TEST_CASE("next model: what is wrong with it is told when its turn comes") {
  Pair pair(25);
  const auto file = pair.folder.path() / "low.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 4096);
  at::Tensor high;
  {
    auto use = pair.prepare();
    high = pair.step();
    CHECK(at::equal(pair.step(), high));
    CHECK(at::equal(pair.step(), high));
  }
  CHECK_THROWS_WITH_AS(pair.low.prepare_and_run(), doctest::Contains("low.safetensors"), Error);
  CHECK_FALSE(pair.low.loaded());
  CHECK(at::equal(pair.high.prepare_and_run(), high));
}

TEST_CASE("next model: where memory is gone meanwhile it leaves nothing half, and comes later") {
  const auto low = low_alone();
  Pair pair(25);
  auto use = pair.prepare();
  auto high = pair.step();
  const auto held = sim::memory(0).in_use;
  sim::limit_memory(0, held + 4 * kBlock);
  for (int i = 0; i < 3; ++i) CHECK(at::equal(pair.step(), high));
  CHECK_FALSE(pair.comes(kNever));
  for (int i = 0; i < 1000 && sim::memory(0).in_use != held; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(sim::memory(0).in_use == held);
  CHECK_FALSE(pair.low.loaded());
  sim::limit_memory(0, 0);
  use = {};
  CHECK(at::equal(pair.low.prepare_and_run(), low));
}
