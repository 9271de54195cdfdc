#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <thread>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using test::kMiB;

namespace {
const c10::Device kFirst(c10::DeviceType::PrivateUse1, 0), kSecond(c10::DeviceType::PrivateUse1, 1);
at::Tensor bytes(c10::Device device, std::int64_t n) {
  return at::empty({n}, at::TensorOptions().dtype(at::kByte).device(device));
}
}  // namespace

TEST_CASE(
    "sim: capacity is that of the rig, per device, and beyond it torch's own error is thrown") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(2, 10 * kMiB));
  for (bool dry : {false, true}) {
    CAPTURE(dry);
    std::optional<sim::DryScope> scope;
    if (dry) scope.emplace();
    auto a = bytes(kFirst, 6 * kMiB);
    CHECK_THROWS_WITH_AS(bytes(kFirst, 5 * kMiB),
                         doctest::Contains("sim:0 out of memory. Tried to allocate 5.0 MiB"),
                         c10::OutOfMemoryError);
    auto b = bytes(kFirst, 4 * kMiB);  // exactly full
    CHECK_THROWS_AS(bytes(kFirst, 1), c10::OutOfMemoryError);
    auto c = bytes(kSecond, 10 * kMiB);
    b.reset();
    CHECK_NOTHROW(bytes(kFirst, 4 * kMiB));
    CHECK_THROWS_AS(a.to(at::kInt), c10::OutOfMemoryError);  // results of operations count as well
    CHECK(sim::memory(0).in_use == 6 * kMiB);
    CHECK(sim::memory(0).peak == 10 * kMiB);
    sim::reset_peak(0);
    CHECK(sim::memory(0).peak == 6 * kMiB);
  }
}

TEST_CASE("sim: sizes are rounded to 512 bytes, views cost nothing") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto a = bytes(kFirst, 1);
  CHECK(sim::memory(0).in_use == 512);
  auto b = at::empty({100, 100}, at::TensorOptions(kFirst));
  CHECK(sim::memory(0).in_use == 512 + 40448);
  auto view = b.t().slice(0, 10, 20).unsqueeze(0).expand({4, 10, 100});
  CHECK(sim::memory(0).in_use == 512 + 40448);
  auto empty = bytes(kFirst, 0);
  CHECK(sim::memory(0).allocations == 2);
}

TEST_CASE("sim: a limit below the total, also through the interface for all devices") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1, 10 * kMiB));
  device::limit_memory(kFirst, 4 * kMiB);
  CHECK_THROWS_WITH_AS(bytes(kFirst, 5 * kMiB), doctest::Contains("limited to 4.0 MiB"),
                       c10::OutOfMemoryError);
  auto a = bytes(kFirst, 3 * kMiB);
  const auto use = device::memory_use(kFirst);
  CHECK(use.in_use == 3 * kMiB);
  CHECK(use.free == 1 * kMiB);
  CHECK(use.total == 10 * kMiB);
  device::limit_memory(kFirst, 0);
  CHECK_NOTHROW(bytes(kFirst, 5 * kMiB));
  CHECK_THROWS_AS(device::limit_memory(kFirst, 11 * kMiB), Error);
}

TEST_CASE("sim: memory told to record_stream stays in use until that stream is past it") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1, 10 * kMiB));
  auto side = device::new_stream(kFirst);
  {
    auto x = bytes(kFirst, 6 * kMiB);
    device::Event made(kFirst);
    made.record(device::current_stream(kFirst));
    made.block(side);
    c10::StreamGuard guard(side);
    x.zero_();
    device::record_stream(x, side);
  }
  CHECK(sim::memory(0).in_use == 6 * kMiB);
  const double before = sim::now();
  auto y = bytes(
      kFirst, 8 * kMiB);  // does not fit beside it: waits for the stream, as CUDA's allocator does
  CHECK(sim::now() > before);
  CHECK(sim::memory(0).in_use == 8 * kMiB);
}

TEST_CASE("sim: faults") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(2));
  SUBCASE("the n-th allocation fails once") {
    sim::fail_allocation(0, 2);
    CHECK_NOTHROW(bytes(kFirst, 1));
    CHECK_THROWS_AS(bytes(kFirst, 1), c10::OutOfMemoryError);
    CHECK_NOTHROW(bytes(kFirst, 1));
  }
  SUBCASE("a device vanishes") {
    auto x = bytes(kSecond, 16), y = bytes(kFirst, 16);
    sim::fail_device(1);
    CHECK_THROWS_WITH_AS(x.add(1), doctest::Contains("sim:1: the device is gone"), Error);
    CHECK_THROWS_AS(y.copy_(x), Error);
    CHECK_THROWS_AS(x.cpu(), Error);
    CHECK_THROWS_AS(bytes(kSecond, 1), Error);
    CHECK_THROWS_AS(device::synchronize(kSecond), Error);
    CHECK_NOTHROW(y.add(1));
    x.reset();
    CHECK(sim::memory(1).in_use == 0);
  }
  SUBCASE("a device that is not there") {
    CHECK_THROWS_WITH_AS(bytes(c10::Device("sim:5"), 1), doctest::Contains("has 2"), Error);
  }
}

TEST_CASE(
    "sim: a dry scope has memory and a clock of its own; tensors from outside are shapes in it") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto outside = at::ones({1000}).to(kFirst);
  const auto in_use = sim::memory(0).in_use;
  const double now = sim::now();
  at::Tensor leaked;
  device::Event before_scope(kFirst);
  outside.add_(1);
  before_scope.record(device::current_stream(kFirst));
  {
    auto rig = test::small_rig(3, 1000 * kMiB);
    sim::DryScope scope(rig);
    CHECK(sim::dry());
    CHECK(sim::device_count() == 3);
    CHECK(sim::memory(0).in_use == 0);
    CHECK(sim::now() == 0);
    auto big = bytes(c10::Device("sim:2"), 900 * kMiB);
    leaked = outside + 1;
    before_scope.block(
        device::current_stream(kFirst));  // an event from outside orders nothing here
    device::record_stream(outside, device::new_stream(kFirst));
    CHECK(sim::finish() > 0);
    CHECK(leaked.sizes() == outside.sizes());
    std::shared_ptr<sim::Machine> here = sim::current_machine();
    std::thread([here] {
      CHECK_FALSE(sim::dry());
      sim::JoinScope join(here);
      CHECK(sim::dry());
      CHECK(sim::device_count() == 3);
    }).join();
    {
      sim::DryScope inner;
      CHECK(sim::memory(2).in_use == 0);
    }
    CHECK(sim::memory(2).in_use == 900 * kMiB);
  }
  CHECK_FALSE(sim::dry());
  CHECK(sim::device_count() == 1);
  CHECK(sim::memory(0).in_use == in_use);
  CHECK(sim::now() == now);
  CHECK_THROWS_WITH_AS(leaked.add(1), doctest::Contains("dry run"), Error);
}

TEST_CASE("out-of-memory errors are known by their type") {
  sim::install(test::small_rig(1, kMiB));
  bool known = false;
  try {
    bytes(kFirst, 2 * kMiB);
  } catch (const std::exception& e) {
    known = device::is_out_of_memory(e);
  }
  CHECK(known);
  CHECK(device::is_out_of_memory(std::bad_alloc()));
  CHECK(device::is_out_of_memory(Error(ErrorKind::OutOfMemory, "cpu", "full")));
  CHECK_FALSE(device::is_out_of_memory(Error(ErrorKind::Usage, "cpu", "no")));
}
