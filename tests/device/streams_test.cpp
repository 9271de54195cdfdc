#include "distorch/device/streams.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/registered.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

TEST_CASE("any device: the same lines stream a ring") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const std::int64_t n = 1 << 20;
  auto stream = new_stream(device), compute = current_stream(device);
  CHECK(stream != compute);
  std::vector<HostBuffer> homes;
  for (int i = 0; i < 4; ++i) {
    homes.emplace_back(n, std::vector<c10::Device>{device});
    homes.back().tensor().fill_(i + 1);
  }
  std::vector<at::Tensor> slots;
  for (int i = 0; i < 2; ++i)
    slots.push_back(at::zeros({n}, at::TensorOptions().dtype(at::kByte).device(device)));
  auto sum = at::zeros({n}, at::TensorOptions().dtype(at::kByte).device(device));
  std::vector<Event> ready, freed;
  for (int i = 0; i < 2; ++i) {
    ready.emplace_back(device);
    freed.emplace_back(device);
    freed[i].record(compute);
  }
  for (int i = 0; i < 4; ++i) {
    freed[i % 2].block(stream);
    copy_async(slots[i % 2], homes[i].tensor(), stream);
    ready[i % 2].record(stream);
    ready[i % 2].block(compute);
    sum.add_(slots[i % 2]);
    freed[i % 2].record(compute);
  }
  freed[1].synchronize();
  CHECK(freed[1].reached());
  CHECK(sum.eq(10).all().item<bool>());
  synchronize(device);
}

TEST_CASE("streams: on the CPU they do nothing, and copies are plain copies") {
  const c10::Device cpu(at::kCPU);
  CHECK_FALSE(has_streams(cpu));
  auto stream = new_stream(cpu);
  Event event(cpu);
  event.record(stream);
  event.block(stream);
  event.synchronize();
  CHECK(event.reached());
  auto x = at::arange(5), y = at::zeros({5}, at::kLong);
  copy_async(y, x, stream);
  CHECK(at::equal(x, y));
  synchronize(cpu);
  CHECK_THROWS_AS(copy_async(y, at::zeros({4}, at::kLong), stream), Error);
  CHECK_THROWS_AS(copy_async(y, at::zeros({5}), stream), Error);
}

TEST_CASE("streams: places nest") {
  CHECK(Place::path().empty());
  {
    Place outer("UNet"), inner("block 3");
    CHECK(Place::path() == "UNet / block 3");
  }
  CHECK(Place::path().empty());
}
