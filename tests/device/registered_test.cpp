#include "distorch/device/registered.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

#include "distorch/base/log.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

namespace {

// A file of `bytes` bytes mapped shared and read-only; byte i is i % 251.
struct MappedFile {
  explicit MappedFile(std::int64_t bytes) : bytes(bytes), file(std::tmpfile()) {
    std::vector<unsigned char> content(bytes);
    for (std::int64_t i = 0; i < bytes; ++i) content[i] = static_cast<unsigned char>(i % 251);
    REQUIRE(std::fwrite(content.data(), 1, content.size(), file) == content.size());
    std::fflush(file);
    start = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fileno(file), 0);
    REQUIRE(start != MAP_FAILED);
  }
  ~MappedFile() {
    munmap(start, bytes);
    std::fclose(file);
  }
  MappedFile(const MappedFile&) = delete;

  at::Tensor tensor() const {
    return at::from_blob(start, {bytes}, at::TensorOptions().dtype(at::kByte));
  }

  std::int64_t bytes;
  std::FILE* file;
  void* start = nullptr;
};

}  // namespace

TEST_CASE(
    "any device: a file mapping is registered while the object lives, and copies from it do not "
    "block") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  MappedFile file(1 << 20);
  auto target = at::empty({file.bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  auto stream = new_stream(device);
  synchronize(device);
  const auto before = registered_file_bytes();
  {
    RegisteredRange range(file.start, file.bytes, {device, c10::Device(at::kCPU)});
    REQUIRE(range);
    copy_async(target, file.tensor(), stream);
    synchronize(stream);
    RegisteredRange moved = std::move(range);
    CHECK(moved);
    CHECK_FALSE(range);
    CHECK(registered_file_bytes() == before + file.bytes);
    if (device.type() == c10::DeviceType::PrivateUse1) CHECK(sim::registered_bytes() == file.bytes);
  }
  if (device.type() == c10::DeviceType::PrivateUse1) CHECK(sim::registered_bytes() == 0);
  CHECK(registered_file_bytes() == before);
  CHECK(at::equal(target.cpu(), file.tensor()));
}

TEST_CASE("registered: a refusal leaves it empty; copies still work, and block") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  const c10::Device device("sim:0");
  MappedFile file(1 << 20), second(1 << 20);
  sim::refuse_registration_after(1 << 20);
  RegisteredRange first(file.start, file.bytes, {device});
  CHECK(first);
  RegisteredRange refused(second.start, second.bytes, {device});
  CHECK_FALSE(refused);
  CHECK(sim::registered_bytes() == 1 << 20);
  HostBuffer buffer(4096, {device});
  CHECK_FALSE(buffer.page_locked());
  auto target = at::empty({second.bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  auto stream = new_stream(device);
  synchronize(device);
  sim::reset_clock();
  copy_async(target, second.tensor(), stream);
  CHECK(sim::now() > 0);  // pageable: the host waited
  CHECK(at::equal(target.cpu(), second.tensor()));
  first = {};
  RegisteredRange now_fits(second.start, second.bytes, {device});
  CHECK(now_fits);
  sim::refuse_registration_after(-1);
}

TEST_CASE("any device: buffers have exactly the size asked for and belong to one owner") {
  const auto device = test::test_device();
  HostBuffer a(1000, {device});
  CHECK(a.bytes() == 1000);
  CHECK(a.tensor().numel() == 1000);
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 4096 == 0);
  a.tensor().fill_(9);
  HostBuffer b = std::move(a);
  CHECK(a.data() == nullptr);
  CHECK(b.tensor()[999].item<int>() == 9);
  b = HostBuffer(10, {device});
  CHECK(b.bytes() == 10);
  HostBuffer plain(10, {c10::Device(at::kCPU)});
  CHECK_FALSE(plain.page_locked());
  CHECK(plain.data() != nullptr);
}
