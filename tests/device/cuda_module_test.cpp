#include "distorch/device/cuda/module.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <fstream>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device::cuda;

namespace {

ModuleEntry good() {
  return {kModuleInterface, TORCH_VERSION, []() -> const Module& { return module(); }};
}

std::filesystem::path temporary(const std::string& name) {
  return std::filesystem::temp_directory_path() / (std::to_string(::getpid()) + name);
}

}  // namespace

TEST_CASE("CUDA module: one of another build or torch is refused in words") {
  CHECK(mismatch(good(), TORCH_ABI_VERSION) == "");
  auto entry = good();
  entry.interface_number += 1;
  CHECK(mismatch(entry, TORCH_ABI_VERSION).find("another build of distorch") != std::string::npos);
  entry = good();
  entry.torch_version = "1.2.3";
  CHECK(mismatch(entry, TORCH_ABI_VERSION) ==
        std::string("it was built with torch 1.2.3, this program with ") + TORCH_VERSION);
  const auto other = std::uint64_t{3} << 56 | std::uint64_t{4} << 48 | std::uint64_t{5} << 40;
  CHECK(mismatch(good(), other) == std::string("it was built with torch ") + TORCH_VERSION +
                                       ", the libtorch that is loaded is 3.4.5");
}

TEST_CASE("CUDA module: one that is missing or no module is told, and nothing else happens") {
  const auto missing = open_module({"/nowhere/here/x.so", "/nowhere/there/x.so"});
  CHECK(missing == "libdistorch_cuda.so is not there (looked in /nowhere/here, /nowhere/there)");
  const auto text = temporary(".so");
  std::ofstream(text) << "not a library";
  CHECK(open_module({"/nowhere/x.so", text}).find(text.string() + " cannot be loaded (") == 0);
  std::filesystem::remove(text);
  Dl_info other{};  // a library that is no module
  REQUIRE(dladdr(reinterpret_cast<void*>(&c10::GetCPUAllocator), &other));
  CHECK(open_module({other.dli_fname}).find("is no module of distorch") != std::string::npos);
  if (test::test_device_or("cpu").rfind("cuda", 0) == 0) return;
  CHECK_THROWS_AS(module(), Error);
}

TEST_CASE("CUDA module: it is looked for beside the program and in lib beside its folder") {
  const auto program = std::filesystem::canonical("/proc/self/exe").parent_path();
  const auto files = module_files();
  REQUIRE(files.size() >= 3);
  CHECK(files[0] == program / "libdistorch_cuda.so");
  CHECK(files[1] == program.parent_path() / "lib" / "libdistorch_cuda.so");
  CHECK(files[2] == program.parent_path().parent_path() / "lib" / "libdistorch_cuda.so");
}

TEST_CASE("any device: the CUDA module is there where its devices are, and speaks of them") {
  const auto device = test::test_device();
  if (!device.is_cuda()) return;
  std::size_t free = 0, total = 0;
  CHECK(module().enter_context() == 0);
  CHECK(module().memory(free, total) == 0);
  CHECK(total == static_cast<std::size_t>(device::memory_use(device).total));
  CHECK(free <= total);
  const auto stream = device::new_stream(device), other = device::new_stream(device);
  CHECK(module().stream(stream) == module().stream(stream));
  CHECK(module().stream(stream) != module().stream(other));
  CHECK(module().stream(device::current_stream(device)) == nullptr);  // the default stream
  // An error is told in the runtime's words, and forgotten.
  int here = 0;
  const int error = module().unregister_host(&here);
  CHECK(error != 0);
  CHECK(module().text_of(error).find("CUDA error ") == 0);
  module().forget_error();
  CHECK(at::ones({2}, at::TensorOptions().device(device)).sum().item<float>() == 2);
}

TEST_CASE("any device: memory that is limited refuses more, and is lifted again") {
  const auto device = test::test_device();
  if (device.is_cpu()) return;
  const auto options = at::TensorOptions().device(device).dtype(at::kByte);
  device::empty_cache(device);
  const auto held = device::memory_use(device).reserved;
  device::limit_memory(device, held + (64 << 20));
  CHECK_THROWS_AS(at::empty({256 << 20}, options), c10::OutOfMemoryError);
  device::limit_memory(device, 0);
  if (device.is_cuda()) CHECK(at::empty({256 << 20}, options).numel() == 256 << 20);
}
