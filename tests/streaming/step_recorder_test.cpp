#include "distorch/streaming/step_recorder.h"

#include <doctest/doctest.h>

#include "distorch/device/memory.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;

namespace {

at::Tensor rows(std::int64_t count) {
  return at::ones({count, 1024}, at::TensorOptions().device(at::Device("sim:0")));
}

at::Tensor twice(const StepRecorder::Tensors& in) { return in[0] * 2; }

}  // namespace

TEST_CASE("what recordings hold is what goes with the last of them") {
  sim::install(test::small_rig());
  auto device = device::to_torch("sim:0");
  StepRecorder recorder(device);
  auto before = sim::memory(0).in_use;
  CHECK(recorder.held_bytes() == 0);
  for (int i = 0; i < 3; ++i) recorder.run({rows(1)}, twice, "");
  auto held = recorder.held_bytes();
  CHECK(held > 0);
  CHECK(sim::memory(0).in_use - before == held);
  // Others that come once each push it out.
  for (int i = 2; i < 9; ++i) recorder.run({rows(i)}, twice, "");
  CHECK(recorder.held_bytes() == 0);
  CHECK(sim::memory(0).in_use == before);
  // A second pool, and its end.
  for (int i = 0; i < 2; ++i) recorder.run({rows(5)}, twice, "");
  CHECK(recorder.held_bytes() == sim::memory(0).in_use - before);
  recorder.clear();
  CHECK(recorder.held_bytes() == 0);
  CHECK(sim::memory(0).in_use == before);
}

TEST_CASE(
    "a recording whose replay does not find its weights is run as it is, then recorded anew") {
  sim::install(test::small_rig());
  StepRecorder recorder(device::to_torch("sim:0"));
  bool moved = false;
  int calls = 0;
  auto forward = [&](const StepRecorder::Tensors& in) {
    ++calls;
    if (std::exchange(moved, false)) throw Moved("toy", "lies elsewhere");
    return twice(in);
  };
  auto step = [&] { return recorder.run({rows(3)}, forward, "").cpu(); };
  for (int i = 0; i < 4; ++i) CHECK(at::equal(step(), rows(3).cpu() * 2));
  moved = true;
  calls = 0;
  CHECK(at::equal(step(), rows(3).cpu() * 2));
  CHECK(calls == 2);
  CHECK(recorder.held_bytes() == 0);
  for (int i = 0; i < 3; ++i) CHECK(at::equal(step(), rows(3).cpu() * 2));
  CHECK(recorder.held_bytes() > 0);
}

TEST_CASE("recordings may be dropped by the step that is being recorded or replayed") {
  sim::install(test::small_rig());
  StepRecorder recorder(device::to_torch("sim:0"));
  auto forward = [&](const StepRecorder::Tensors& in) {
    recorder.clear();
    return twice(in);
  };
  for (int i = 0; i < 4; ++i)
    CHECK(at::equal(recorder.run({rows(2)}, forward, "").cpu(), rows(2).cpu() * 2));
  CHECK(recorder.held_bytes() == 0);
}

TEST_CASE("where both ways are timed the shorter one stays, also for recordings made later") {
  struct Fake final : StepRecorder::Timer {
    explicit Fake(const double& now) : now(now) {}
    void start() override { begin = now; }
    void stop() override { end = now; }
    std::optional<double> seconds() override { return end - begin; }
    const double& now;
    double begin = 0, end = 0;
  };
  for (bool recorded_wins : {false, true}) {
    CAPTURE(recorded_wins);
    sim::install(test::small_rig());
    StepRecorder recorder(device::to_torch("sim:0"));
    double now = 0;
    int calls = 0;
    recorder.compare(true);
    recorder.time_with([&] { return std::make_unique<Fake>(now); });
    const void* given = nullptr;
    auto forward = [&](const StepRecorder::Tensors& in) {
      ++calls;
      // A recording reads inputs of its own.
      now += in[0].const_data_ptr() == given ? 1 : recorded_wins ? 0.5 : 2;
      return twice(in);
    };
    auto step = [&] {
      auto input = rows(2);
      given = input.const_data_ptr();
      CHECK(at::equal(recorder.run({input}, forward, "").cpu(), input.cpu() * 2));
    };
    for (int i = 0; i < 7; ++i) step();
    CHECK((recorder.held_bytes() > 0) == recorded_wins);
    recorder.clear();
    for (int i = 0; i < 3; ++i) step();
    CHECK((recorder.held_bytes() > 0) == recorded_wins);
    recorder.forget();
    recorder.clear();
    calls = 0;
    for (int i = 0; i < 3; ++i) step();
    CHECK(calls == 3);
    CHECK(recorder.held_bytes() == 0);
  }
}
