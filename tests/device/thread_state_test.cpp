#include "distorch/device/thread_state.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/device/work_log.h"
#include "tests/support/devices.h"

using namespace distorch;

namespace {

const c10::Device kFirst(c10::DeviceType::PrivateUse1, 0);

struct Seen {
  bool dry = false, inference = false;
  int devices = 0;
  std::string run;
  bool operator==(const Seen&) const = default;
};

Seen seen() {
  const auto run = current_run();
  return {sim::dry(), c10::InferenceMode::is_enabled(), sim::device_count(),
          run ? run->prompt_id() : "none"};
}

Seen seen_by_worker(const device::ThreadState& state) {
  Seen inside, after;
  const auto before = seen();
  std::thread([&] {
    {
      device::ThreadState::Scope inherited(state);
      inside = seen();
    }
    after = seen();
  }).join();
  CHECK(after.inference == false);
  CHECK(before == seen());
  return inside;
}

}  // namespace

TEST_CASE("thread state: a worker has the simulated machine and the mode of who gave it work") {
  sim::install(test::small_rig(1));
  CHECK(seen_by_worker(device::ThreadState::capture()) == Seen{false, false, 1, "none"});
  sim::DryScope dry(test::small_rig(3));
  RunScope run(std::make_shared<RunToken>("first"));
  c10::InferenceMode inference;
  const auto state = device::ThreadState::capture();
  CHECK(seen_by_worker(state) == Seen{true, true, 3, "first"});
  {
    // What was captured is kept, whatever the thread does meanwhile.
    sim::DryScope other(test::small_rig(2));
    c10::InferenceMode off(false);
    RunScope other_run(std::make_shared<RunToken>("second"));
    CHECK(seen_by_worker(state) == Seen{true, true, 3, "first"});
    CHECK(seen_by_worker(device::ThreadState::capture()) == Seen{true, false, 2, "second"});
  }
}

TEST_CASE("thread state: a worker works for the run of who gave it work") {
  auto run = std::make_shared<RunToken>("seven");
  device::ThreadState state;
  {
    RunScope scope(run);
    state = device::ThreadState::capture();
  }
  CHECK(current_run() == nullptr);
  run->interrupt();
  std::thread([&] {
    device::ThreadState::Scope inherited(state);
    CHECK(current_run() == run);
    CHECK_THROWS_AS(throw_if_interrupted(), Error);
  }).join();
}

TEST_CASE("work log: simulated devices list what they have done since it was switched on") {
  sim::install(test::small_rig(1));
  CHECK(device::logs_its_work(kFirst));
  CHECK_FALSE(device::logs_its_work(at::kCPU));
  auto x = at::zeros({1 << 20}, at::TensorOptions().device(kFirst));
  device::log_work(true);
  x.add_(1);
  x.copy_(at::ones({1 << 20}));
  const auto work = device::logged_work();
  REQUIRE(work.size() == 2);
  CHECK(work[0].lane == "sim:0 compute");
  CHECK(work[0].name == "aten::add");
  CHECK(work[0].end_s > work[0].start_s);
  CHECK(work[1].bytes == 4 << 20);
  CHECK(work[1].start_s >= work[0].end_s);
  device::log_work(false);
  x.add_(1);
  CHECK(device::logged_work().empty());
}
