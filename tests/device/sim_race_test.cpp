#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/registered.h"
#include "distorch/device/sim/race.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;

namespace {

const c10::Device kSim0(c10::DeviceType::PrivateUse1, 0);
constexpr std::int64_t kBytes = 4 << 20;

at::Tensor bytes(std::int64_t n = kBytes) {
  return at::empty({n}, at::TensorOptions().dtype(at::kByte).device(kSim0));
}

struct Ring {
  bool wait_for_copy = true;   // compute waits until its slot is filled
  bool wait_for_free = true;   // a copy waits until its slot has been read
  bool wait_for_start = true;  // the first copies wait until the slots exist for them
  bool one_storage = false;    // both slots are halves of one allocation
  bool host_waits = true;      // a staging buffer is refilled only when its copy is over
  int skip_at = -1;            // leave the wait out only once, here
};

// Two steps over `blocks` weights through two slots, each staged through a page-locked buffer of
// its own.
void run(const Ring& ring, int blocks = 6) {
  at::Tensor both = bytes(2 * kBytes);
  std::vector<at::Tensor> slots{bytes(), bytes()};
  if (ring.one_storage) slots = {both.slice(0, 0, kBytes), both.slice(0, kBytes, 2 * kBytes)};
  for (auto& slot : slots) slot.zero_();
  std::vector<device::HostBuffer> staging;
  staging.emplace_back(kBytes, std::vector<c10::Device>{kSim0});
  staging.emplace_back(kBytes, std::vector<c10::Device>{kSim0});
  auto compute = device::current_stream(kSim0), copy = device::new_stream(kSim0);
  std::vector<device::Event> ready, freed;
  for (int i = 0; i < 2; ++i) ready.emplace_back(kSim0), freed.emplace_back(kSim0);
  if (ring.wait_for_start)
    for (auto& event : freed) event.record(compute);
  const auto skipped = [&](int i) { return ring.skip_at < 0 || ring.skip_at == i; };
  const auto issue = [&](int i) {
    auto& buffer = staging[i % 2];
    if (i >= 2 && (ring.host_waits || !skipped(i))) ready[i % 2].synchronize();
    device::host_will_write(buffer.data(), buffer.bytes());
    if (ring.wait_for_free || !skipped(i)) freed[i % 2].block(copy);
    device::copy_async(slots[i % 2], buffer.tensor(), copy);
    ready[i % 2].record(copy);
  };
  issue(0);
  for (int i = 0; i < 2 * blocks; ++i) {
    if (i + 1 < 2 * blocks) issue(i + 1);
    if (ring.wait_for_copy || !skipped(i)) ready[i % 2].block(compute);
    auto used = slots[i % 2].add(1);
    freed[i % 2].record(compute);
  }
  device::synchronize(kSim0);
}

}  // namespace

TEST_CASE("race: vector clocks") {
  sim::Order order;
  order.add_stream();
  order.add_stream();
  const auto first = order.tick(0);
  CHECK_FALSE(order.before(0, first, 1));
  const auto event = order.clock(0);
  const auto second = order.tick(0);
  order.stream_waits(1, event);
  CHECK(order.before(0, first, 1));
  CHECK_FALSE(order.before(0, second, 1));
  CHECK(order.before(0, second, 0));  // a stream is in order with itself
  order.host_waits(order.clock(0));
  CHECK(order.before(0, second, 1));  // what is issued after the host waited
}

TEST_CASE(
    "race: a correct two-slot ring is accepted, in both modes, and with both slots in one "
    "storage") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  CHECK_NOTHROW(run({}));
  CHECK_NOTHROW(run({.one_storage = true}));
  sim::DryScope dry;
  CHECK_NOTHROW(run({}));
}

TEST_CASE("race: every wait of the ring that is left out is caught") {
  c10::InferenceMode inference;
  const auto caught = [](const Ring& ring) {
    sim::install(test::small_rig(1));
    CHECK_THROWS_WITH_AS(run(ring), doctest::Contains("a race"), Error);
  };
  caught({.wait_for_copy = false});
  caught({.wait_for_free = false});
  caught({.wait_for_start = false});
  caught({.host_waits = false});
  caught({.wait_for_copy = false, .one_storage = true});
  caught({.wait_for_free = false, .one_storage = true});
  for (int i = 0; i < 12; ++i) caught({.wait_for_copy = false, .skip_at = i});
  for (int i = 2; i < 12; ++i) caught({.wait_for_free = false, .skip_at = i});
  for (int i = 2; i < 12; ++i) caught({.host_waits = false, .skip_at = i});
}

TEST_CASE("race: the message names sizes, operations and streams") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto x = bytes();
  auto side = device::new_stream(kSim0);
  x.fill_(1);
  c10::StreamGuard guard(side);
  try {
    auto y = x.add(1);
    FAIL("not caught");
  } catch (const Error& e) {
    const std::string text = e.what();
    for (const char* part :
         {"sim:0", "aten::add", "aten::fill_", "sim:0 compute", "sim:0 stream 1", "4194304"})
      CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  }
}

TEST_CASE("race: memory freed while another stream uses it") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto side = device::new_stream(kSim0), main = device::current_stream(kSim0);
  const auto use_aside = [&](at::Tensor& x) {
    device::Event made(kSim0);
    made.record(main);
    made.block(side);
    c10::StreamGuard guard(side);
    auto y = x.add(1);
    device::record_stream(y, main);
  };
  SUBCASE("is not given out again") {
    {
      auto x = bytes().fill_(0);
      use_aside(x);
    }
    CHECK_THROWS_WITH_AS(bytes(), doctest::Contains("record_stream"), Error);
  }
  SUBCASE("unless the stream waited") {
    {
      auto x = bytes().fill_(0);
      use_aside(x);
      device::Event done(kSim0);
      done.record(side);
      done.block(main);
    }
    CHECK_NOTHROW(bytes());
  }
  SUBCASE("or waits after the free and before the reuse") {
    {
      auto x = bytes().fill_(0);
      use_aside(x);
    }
    device::synchronize(side);
    CHECK_NOTHROW(bytes());
  }
  SUBCASE("or the allocator was told") {
    {
      auto x = bytes().fill_(0);
      use_aside(x);
      device::record_stream(x, side);
    }
    CHECK_NOTHROW(bytes());
  }
}

TEST_CASE(
    "race: reads of two streams do not conflict; copies between devices are ordered on both") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(2));
  auto x = bytes().fill_(3);
  device::synchronize(kSim0);
  auto a = device::new_stream(kSim0), b = device::new_stream(kSim0);
  {
    c10::StreamGuard guard(a);
    auto y = x.add(1);
  }
  {
    c10::StreamGuard guard(b);
    auto y = x.add(1);
  }
  auto moved = x.to(c10::Device("sim:1"));
  auto sum = moved.add(1);
  CHECK(sum.eq(4).all().item<bool>());
  CHECK_THROWS_AS(x.add_(1), Error);  // neither a nor b was waited for
}

TEST_CASE("race: the check can be switched off") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1), sim::Options{.race_check = false});
  CHECK_NOTHROW(run({.wait_for_copy = false, .wait_for_free = false}));
}
