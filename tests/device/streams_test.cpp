#include "distorch/device/streams.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <vector>

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

TEST_CASE(
    "any device: streams that are asked for are apart, from each other and from the current one") {
  const auto device = test::test_device();
  std::vector<c10::Stream> streams{current_stream(device)};
  for (int i = 0; i < 4; ++i) streams.push_back(new_stream(device, i % 2 == 0));
  for (std::size_t i = 0; i < streams.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) CHECK(streams[i] != streams[j]);
  // However many are asked for, all can be used.
  for (int i = 0; i < 40; ++i) {
    const auto stream = new_stream(device);
    const auto options = at::TensorOptions().device(device);
    auto there = at::zeros({8}, options), ones = at::ones({8}, options);
    synchronize(device);
    copy_async(there, ones, stream);
    synchronize(stream);
    CHECK(there.sum().item<float>() == 8);
  }
}

TEST_CASE("any device: counters order streams, long after the count and many counts later") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const std::int64_t n = 1 << 18;
  constexpr int rounds = 600;  // more than are remembered where events stand in
  auto stream = new_stream(device), compute = current_stream(device);
  HostBuffer home(rounds * n / 64, {device});
  auto bytes = home.tensor().view({rounds, n / 64});
  for (int i = 0; i < rounds; ++i) bytes[i].fill_(i % 7);
  auto options = at::TensorOptions().dtype(at::kByte).device(device);
  auto slots = at::zeros({2, n / 64}, options);
  auto sum = at::zeros({n / 64}, options.dtype(at::kInt));
  Counter ready(device), freed(device);
  ready.wait(0, compute);
  synchronize(device);
  std::uint32_t free[2] = {0, 0};
  for (int i = 0; i < rounds; ++i) {
    freed.wait(free[i % 2], stream);
    copy_async(slots[i % 2], bytes[i], stream);
    const auto arrived = ready.raise(stream);
    CHECK(arrived == static_cast<std::uint32_t>(i + 1));
    ready.wait(arrived, compute);
    sum.add_(slots[i % 2]);
    free[i % 2] = freed.raise(compute);
  }
  ready.wait(1, compute);
  int wanted = 0;
  for (int i = 0; i < rounds; ++i) wanted += i % 7;
  CHECK(sum.eq(wanted).all().item<bool>());
  synchronize(device);
}

TEST_CASE("any device: several copies as one arrive where they should") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const std::int64_t n = 1 << 16;
  auto stream = new_stream(device);
  HostBuffer home(4 * n, {device});
  home.tensor().copy_(at::arange(4 * n).remainder(251).to(at::kByte));
  auto target = at::zeros({4 * n}, at::TensorOptions().dtype(at::kByte).device(device));
  synchronize(device);
  std::vector<Copy> copies;
  std::int64_t at = 0;
  for (std::int64_t size : {n, n / 2, std::int64_t{1}, std::int64_t{0}, 2 * n}) {
    copies.push_back({target.narrow(0, at, size), home.tensor().narrow(0, at, size)});
    at += size + 3;
  }
  copy_async(copies, stream);
  copy_async(std::vector<Copy>{}, stream);
  synchronize(stream);
  auto wanted = at::zeros_like(home.tensor());
  for (const auto& [dst, src] : copies)
    wanted.narrow(0, dst.storage_offset(), dst.numel()).copy_(src);
  CHECK(at::equal(target.cpu(), wanted));
  CHECK_THROWS_AS(copy_async({{target.narrow(0, 0, 3), home.tensor().narrow(0, 0, 4)},
                              {target.narrow(0, 0, 4), home.tensor().narrow(0, 0, 4)}},
                             stream),
                  Error);
  auto numbers = at::zeros({2}, at::kInt), others = at::zeros({2}, at::kFloat);
  auto there = at::zeros({2, 2}, target.options().dtype(at::kFloat));
  CHECK_THROWS_AS(copy_async({{there[0], numbers}, {there[1], others}}, stream), Error);
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
  Counter counter(cpu);
  CHECK(counter.raise(stream) == 1);
  counter.wait(1, stream);
  auto x = at::arange(5), y = at::zeros({5}, at::kLong);
  copy_async(y, x, stream);
  CHECK(at::equal(x, y));
  synchronize(cpu);
  CHECK_THROWS_AS(copy_async(y, at::zeros({4}, at::kLong), stream), Error);
  CHECK_THROWS_AS(copy_async(y, at::zeros({5}), stream), Error);
}

TEST_CASE("streams: places nest") {
  CHECK(NamedScope::path().empty());
  {
    NamedScope outer("UNet"), inner("block 3");
    CHECK(NamedScope::path() == "UNet / block 3");
  }
  CHECK(NamedScope::path().empty());
}
