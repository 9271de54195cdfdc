#include "distorch/device/memory.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

#include "distorch/base/error.h"
#include "distorch/device/measure.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;
using test::kMiB;

namespace {
at::Tensor bytes(c10::Device device, std::int64_t n) {
  return at::empty({n}, at::TensorOptions().dtype(at::kByte).device(device));
}
}  // namespace

TEST_CASE("any device: what tensors hold is counted, the peak stays until it is reset") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const auto info = find_device(test::test_device_name());
  CHECK(info.accelerator);
  CHECK(info.total_bytes > 0);
  CHECK(info.free_bytes > 0);
  CHECK(info.free_bytes <= info.total_bytes);
  empty_cache(device);
  const auto before = memory_use(device);
  CHECK(before.total > 0);
  CHECK(before.free <= before.total);
  reset_peak(device);
  auto kept = bytes(device, 16 * kMiB);
  bytes(device, 32 * kMiB);
  const auto after = memory_use(device);
  CHECK(after.in_use - before.in_use == 16 * kMiB);
  CHECK(after.peak - before.in_use == 48 * kMiB);
  CHECK(after.reserved >= after.in_use);
  kept.reset();
  reset_peak(device);
  CHECK(memory_use(device).peak == memory_use(device).in_use);
}

TEST_CASE("any device: kernels that need a stack have one, though small ones are kept for them") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  memory_use(device);  // has looked at what is free, as who places models does
  const auto x = at::linspace(0.1, 20, 4096), a = at::linspace(5, 0.5, 4096);
  const auto same = [](const at::Tensor& got, const at::Tensor& wanted) {
    return at::allclose(got.cpu(), wanted, 1e-4, 1e-6);
  };
  CHECK(same(at::special_gammainc(a.to(device), x.to(device)), at::special_gammainc(a, x)));
  CHECK(same(at::special_zeta(x.to(device) + 1, a.to(device)), at::special_zeta(x + 1, a)));
  CHECK(same(std::get<0>(at::sort(a.to(device))), std::get<0>(at::sort(a))));
}

TEST_CASE("any device: a limit is kept and can be lifted") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  empty_cache(device);
  const auto use = memory_use(device);
  limit_memory(device, use.reserved + 64 * kMiB);
  bool refused = false;
  try {
    auto x = bytes(device, 128 * kMiB);
  } catch (const std::exception& e) {
    refused = is_out_of_memory(e);
  }
  CHECK(refused);
  CHECK_NOTHROW(bytes(device, 32 * kMiB));
  limit_memory(device, 0);
  CHECK_NOTHROW(bytes(device, 128 * kMiB));
  CHECK_THROWS_AS(limit_memory(device, use.total + 1), Error);
  CHECK_THROWS_AS(limit_memory(device, -1), Error);
  CHECK_NOTHROW(limit_memory(c10::Device(c10::kCPU), 1));
}

TEST_CASE("what libraries say where they find no memory is out of memory, other faults are not") {
  auto told = [](const char* text) {
    return is_out_of_memory(c10::Error(c10::SourceLocation{"here", __FILE__, 1}, text));
  };
  CHECK(told("CUDA error: out of memory"));
  CHECK(told("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
  CHECK(told("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"));
  CHECK_FALSE(told("CUDA error: an illegal memory access was encountered"));
  CHECK_FALSE(is_out_of_memory(std::runtime_error("CUDA error: out of memory")));
}

TEST_CASE("any device: the links of the device can be measured") {
  const auto name = test::test_device_name();
  const auto table = measure({.bytes = 32 * kMiB, .repeats = 2});
  REQUIRE(table.find("cpu", name));
  CHECK(table.find("cpu", name)->gbps > table.find("cpu", name)->pageable_gbps);
  CHECK(table.find(name, "cpu")->gbps > 0);
  CHECK(table.find("cpu", name)->latency_s < 1e-3);
}

TEST_CASE("the CPU's own memory leaves out pages of mapped files") {
  constexpr std::int64_t size = 48 * kMiB;
  std::FILE* file = std::tmpfile();
  REQUIRE(file);
  REQUIRE(::ftruncate(::fileno(file), size) == 0);
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_POPULATE, ::fileno(file), 0);
  REQUIRE(mapped != MAP_FAILED);
  auto with = memory_use(at::kCPU);
  CHECK(with.own > 0);
  CHECK(with.in_use - with.own >= size);
  auto held = at::ones({size}, at::kByte);
  CHECK(memory_use(at::kCPU).own - with.own >= size - kMiB);
  ::munmap(mapped, size);
  std::fclose(file);
}
