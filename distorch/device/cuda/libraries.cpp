#include "distorch/device/cuda/libraries.h"

#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>

#include <filesystem>

namespace distorch::device::cuda {

Driver::Driver() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  init = find<decltype(init)>(library, "cuInit");
  count = find<decltype(count)>(library, "cuDeviceGetCount");
  get = find<decltype(get)>(library, "cuDeviceGet");
  name = find<decltype(name)>(library, "cuDeviceGetName");
  total = find<decltype(total)>(library, "cuDeviceTotalMem_v2");
  bus_id = find<decltype(bus_id)>(library, "cuDeviceGetPCIBusId");
  attribute = find<decltype(attribute)>(library, "cuDeviceGetAttribute");
  load_module = find<decltype(load_module)>(library, "cuModuleLoadData");
  function = find<decltype(function)>(library, "cuModuleGetFunction");
  set_function = find<decltype(set_function)>(library, "cuFuncSetAttribute");
  launch = find<decltype(launch)>(library, "cuLaunchKernel");
  copy_batch = find<decltype(copy_batch)>(library, "cuMemcpyBatchAsync_v2");
  write_value = find<decltype(write_value)>(library, "cuStreamWriteValue32_v2");
  wait_value = find<decltype(wait_value)>(library, "cuStreamWaitValue32_v2");
  capture_info = find<decltype(capture_info)>(library, "cuStreamGetCaptureInfo_v2");
}

int Driver::devices() const {
  int n = 0;
  if (!init || !count || !get || !name || !total || init(0) != 0 || count(&n) != 0) return 0;
  return n;
}

Runtime::Runtime() {
  void* library = dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD);
  if (!library) library = dlopen("libcudart.so.12", RTLD_NOW | RTLD_NOLOAD);
  if (!library) library = RTLD_DEFAULT;
  const auto look = [&](const char* name) { return dlsym(library, name); };
  host_register = reinterpret_cast<decltype(host_register)>(look("cudaHostRegister"));
  host_unregister = reinterpret_cast<decltype(host_unregister)>(look("cudaHostUnregister"));
  mem_info = reinterpret_cast<decltype(mem_info)>(look("cudaMemGetInfo"));
  copy_async = reinterpret_cast<decltype(copy_async)>(look("cudaMemcpyAsync"));
  last_error = reinterpret_cast<decltype(last_error)>(look("cudaGetLastError"));
  error_text = reinterpret_cast<decltype(error_text)>(look("cudaGetErrorString"));
}

std::string Runtime::text_of(int error) const {
  return fmt::format("CUDA error {}: {}", error, error_text ? error_text(error) : "unknown");
}

bool Runtime::enter_context() const {
  std::size_t free = 0, total = 0;
  return mem_info && mem_info(&free, &total) == 0;
}

const Driver& driver() {
  static const Driver one;
  return one;
}

const Runtime& runtime() {
  static const Runtime one;
  return one;
}

std::string torch_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&c10::GetCPUAllocator), &info) || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

NativeStream native(const c10::Stream& stream) {
  // CUDAStream is a c10::Stream and nothing else; this function of it gives the runtime's stream.
  static const auto function = reinterpret_cast<void* (*)(const c10::Stream*)>(
      dlsym(RTLD_DEFAULT, "_ZNK3c104cuda10CUDAStream6streamEv"));
  if (!function) return {};
  return {function(&stream), true};
}

}  // namespace distorch::device::cuda
