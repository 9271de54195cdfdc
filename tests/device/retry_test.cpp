#include "distorch/device/retry.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <thread>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

namespace {

const at::Device kSim(c10::DeviceType::PrivateUse1, 0);

/// Counts who asked for room, and gives it or not.
struct Room {
  bool there = true;
  std::vector<std::string> asked;
  MakeRoom maker() {
    return [this](c10::Device device, std::int64_t bytes) {
      CHECK(bytes >= (std::int64_t{64} << 20));
      asked.push_back(name_of(device));
      return there;
    };
  }
};

}  // namespace

TEST_CASE("retry: an operation that runs out of memory is done again once there is room") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(), sim::Mode::Exec);
  Room room;
  RetryScope scope(room.maker());
  const auto host = at::arange(6, at::kFloat).reshape({2, 3});

  sim::fail_allocation(0, 1);
  auto x = host.to(kSim);
  CHECK(room.asked.size() == 1);
  sim::fail_allocation(0, 1);
  auto joined = at::cat({x, x});
  CHECK(room.asked.size() == 2);
  CHECK(at::equal(joined.cpu(), at::cat({host, host})));
  // The temporary of another type is allocated before anything is written.
  sim::fail_allocation(0, 1);
  x.add_(x.to(at::kHalf));
  CHECK(at::equal(x.cpu(), host + host));
  sim::fail_allocation(0, 1);
  auto made = at::zeros({4}, at::TensorOptions().device(kSim));
  CHECK(at::equal(made.cpu(), at::zeros({4})));
  CHECK(room.asked == std::vector<std::string>(4, "sim:0"));
}

TEST_CASE("retry: it ends where nothing can make room, with the device") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(), sim::Mode::Exec);
  Room room;
  room.there = false;
  auto x = at::ones({3}).to(kSim);
  RetryScope scope(room.maker());
  sim::fail_allocation(0, 1);
  try {
    auto y = x + x;
    FAIL("it was made");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::OutOfMemory);
    CHECK(error.where() == "sim:0");
    CHECK(std::string(error.what()).find("does not fit even with every") != std::string::npos);
  }
  // It does not go on for ever where the device is simply too small, whatever makes room says.
  room.there = true;
  sim::limit_memory(0, sim::memory(0).in_use + 1024);
  CHECK_THROWS_AS(at::empty({1 << 20}, at::TensorOptions().device(kSim)), Error);
  sim::limit_memory(0, 0);
  // Other errors are not asked about.
  room.asked.clear();
  CHECK_THROWS_AS(x + at::ones({2}).to(kSim), c10::Error);
  CHECK(room.asked.empty());
}

TEST_CASE("retry: the innermost scope counts, for its thread alone") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(), sim::Mode::Exec);
  Room outer, inner;
  auto x = at::ones({3}).to(kSim);
  auto fails = [&] {
    sim::fail_allocation(0, 1);
    try {
      auto y = x + x;
      return false;
    } catch (const std::exception& error) {
      CHECK(is_out_of_memory(error));
      return true;
    }
  };
  CHECK(fails());
  {
    RetryScope scope(outer.maker());
    {
      RetryScope within(inner.maker());
      CHECK_FALSE(fails());
    }
    {
      RetryScope once;
      CHECK(fails());
    }
    CHECK(outer.asked.empty());
    CHECK(inner.asked.size() == 1);
    CHECK_FALSE(fails());
    CHECK(outer.asked.size() == 1);
    bool elsewhere = false;
    std::thread([&] { elsewhere = fails(); }).join();
    CHECK(elsewhere);
  }
  CHECK(fails());
}

TEST_CASE("retry: who makes room is not asked again for what he needs himself") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(), sim::Mode::Exec);
  auto x = at::ones({3}).to(kSim);
  int asked = 0;
  RetryScope scope([&](c10::Device, std::int64_t) {
    ++asked;
    sim::fail_allocation(0, 1);
    CHECK_THROWS(at::zeros({3}, at::TensorOptions().device(kSim)));
    return true;
  });
  sim::fail_allocation(0, 1);
  CHECK(at::equal((x + x).cpu(), at::full({3}, 2.0)));
  CHECK(asked == 1);
}
