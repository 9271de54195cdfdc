#include "distorch/device/cuda/libraries.h"

#include <c10/core/CPUAllocator.h>

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
  retain_context = find<decltype(retain_context)>(library, "cuDevicePrimaryCtxRetain");
  set_limit = find<decltype(set_limit)>(library, "cuCtxSetLimit");
  load_module = find<decltype(load_module)>(library, "cuModuleLoadData");
  function = find<decltype(function)>(library, "cuModuleGetFunction");
  set_function = find<decltype(set_function)>(library, "cuFuncSetAttribute");
  encode_tiled = find<decltype(encode_tiled)>(library, "cuTensorMapEncodeTiled");
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

const Driver& driver() {
  static const Driver one;
  return one;
}

std::string torch_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&c10::GetCPUAllocator), &info) || !info.dli_fname) return {};
  return std::filesystem::path(info.dli_fname).parent_path();
}

}  // namespace distorch::device::cuda
