#include <ATen/Context.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <mutex>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/kind.h"
#include "distorch/device/streams.h"

// NVIDIA devices, found at run time: the driver by its library, torch's CUDA half from beside
// torch_cpu. Nothing of CUDA is needed to build; functions are looked up by name and signatures
// stand here.
namespace distorch::device {
namespace torch_abi {

// The part of c10::cuda::CUDACachingAllocator::CUDAAllocator that sets the share of the device's
// memory which torch may take. Its header needs the CUDA toolkit, so the functions stand here in
// the order of torch 2.11; whoever calls checks by reading back.
// Not in the anonymous namespace: a class that nothing here derives from would let the compiler
// take its functions for never implemented.
class FractionSetter : public c10::DeviceAllocator {
 public:
  virtual void* raw_alloc(std::size_t) = 0;
  virtual void* raw_alloc_with_stream(std::size_t, void*) = 0;
  virtual void raw_delete(void*) = 0;
  virtual void init(int) = 0;
  virtual double get_fraction(c10::DeviceIndex) = 0;
  virtual void set_fraction(double, c10::DeviceIndex) = 0;
};

}  // namespace torch_abi

namespace {

template <class Function>
Function find(void* library, const char* name) {
  return library ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr;
}

// What of the driver (libcuda) is used. Available before torch's CUDA half is loaded, creates no
// context.
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*count)(int*) = nullptr;
  int (*get)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*total)(std::size_t*, int) = nullptr;
  int (*bus_id)(char*, int, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    init = find<decltype(init)>(library, "cuInit");
    count = find<decltype(count)>(library, "cuDeviceGetCount");
    get = find<decltype(get)>(library, "cuDeviceGet");
    name = find<decltype(name)>(library, "cuDeviceGetName");
    total = find<decltype(total)>(library, "cuDeviceTotalMem_v2");
    bus_id = find<decltype(bus_id)>(library, "cuDeviceGetPCIBusId");
    attribute = find<decltype(attribute)>(library, "cuDeviceGetAttribute");
  }

  int devices() const {
    int n = 0;
    if (!init || !count || !get || !name || !total || init(0) != 0 || count(&n) != 0) return 0;
    return n;
  }
};

// The runtime that torch itself is linked to.
struct Runtime {
  int (*host_register)(void*, std::size_t, unsigned) = nullptr;
  int (*host_unregister)(void*) = nullptr;
  int (*mem_info)(std::size_t*, std::size_t*) = nullptr;
  int (*copy_async)(void*, const void*, std::size_t, int, void*) = nullptr;
  int (*last_error)() = nullptr;
  const char* (*error_text)(int) = nullptr;

  Runtime() {
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
};

// at::cuda::CUDAGraph of torch 2.11, whose header needs the CUDA toolkit: its functions by their
// names in libtorch_cuda, an object as memory that is larger than it.
struct TorchGraph {
  using Pool = std::pair<unsigned long long, unsigned long long>;
  static constexpr std::size_t size_bytes = 1024;

  void (*construct)(void*, bool) = find<decltype(construct)>("C1Eb");
  void (*destroy)(void*) = find<decltype(destroy)>("D1Ev");
  void (*begin)(void*, Pool,
                int) = find<decltype(begin)>("13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
  void (*end)(void*) = find<decltype(end)>("11capture_endEv");
  void (*replay)(void*) = find<decltype(replay)>("6replayEv");
  Pool (*pool)(void*) = find<decltype(pool)>("4poolEv");

  bool complete() const { return construct && destroy && begin && end && replay && pool; }

 private:
  template <class Function>
  static Function find(const char* name) {
    return reinterpret_cast<Function>(
        dlsym(RTLD_DEFAULT, (std::string("_ZN2at4cuda9CUDAGraph") + name).c_str()));
  }
};

const TorchGraph& torch_graph() {
  static const TorchGraph one;
  return one;
}

const Driver& driver() {
  static const Driver one;
  return one;
}

const Runtime& runtime() {
  static const Runtime one;
  return one;
}

// libtorch_cuda lies in the folder of libc10.
bool load_torch_cuda() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&c10::GetCPUAllocator), &info) || !info.dli_fname)
    return false;
  const auto library = std::filesystem::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) return true;
  const char* reason = dlerror();
  log::warn_once(
      fmt::format("an NVIDIA driver is present, but torch's CUDA library cannot be loaded, so its "
                  "devices are not "
                  "used ({})",
                  reason ? reason : library.string()));
  return false;
}

int usable_devices() {
  static const int count = [] {
    const int n = driver().devices();
    return n > 0 && load_torch_cuda() ? n : 0;
  }();
  return count;
}

// Free memory without making a context on the device, through NVML by bus id.
std::optional<std::int64_t> free_by_nvml(int handle) {
  struct Usage {
    unsigned long long total, free, used;
  };
  static void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  static const auto init = find<int (*)()>(library, "nvmlInit_v2");
  static const auto by_bus =
      find<int (*)(const char*, void**)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  static const auto usage = find<int (*)(void*, Usage*)>(library, "nvmlDeviceGetMemoryInfo");
  static const bool ready = init && by_bus && usage && init() == 0;
  char bus[32] = {};
  void* device = nullptr;
  Usage use{};
  if (!ready || !driver().bus_id || driver().bus_id(bus, sizeof bus, handle) != 0 ||
      by_bus(bus, &device) != 0 || usage(device, &use) != 0)
    return std::nullopt;
  return static_cast<std::int64_t>(use.free);
}

c10::DeviceAllocator& allocator() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return *c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

c10::Device cuda_device(int index) {
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

class CudaRecording final : public Recording {
 public:
  CudaRecording(c10::Device device, const CudaRecording* beside) : device_(device) {
    if (beside) shared_ = torch_graph().pool(beside->graph());
    torch_graph().construct(graph(), false);
  }
  ~CudaRecording() override {
    result_ = at::Tensor();
    torch_graph().destroy(graph());
  }

  void capture(const std::function<at::Tensor()>& body) {
    constexpr int kThisThread = 1;  // other threads may go on using the device
    // The default stream cannot be recorded.
    c10::StreamGuard stream(new_stream(device_));
    torch_graph().begin(graph(), shared_, kThisThread);
    std::exception_ptr failure;
    try {
      result_ = body();
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      torch_graph().end(graph());
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
    if (failure) std::rethrow_exception(failure);
  }
  void replay() override {
    c10::DeviceGuard guard(device_);
    torch_graph().replay(graph());
  }

 private:
  void* graph() const { return const_cast<unsigned char*>(memory_); }

  c10::Device device_;
  TorchGraph::Pool shared_{0, 0};
  alignas(64) unsigned char memory_[TorchGraph::size_bytes] = {};
};

class CudaKind final : public Kind {
 public:
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }

  std::vector<DeviceInfo> list() override {
    std::vector<DeviceInfo> all;
    for (int i = 0; i < usable_devices(); ++i) {
      int handle = 0, major = 0;
      char name[128] = {};
      std::size_t total = 0;
      if (driver().get(&handle, i) != 0) continue;
      driver().name(name, sizeof name, handle);
      driver().total(&total, handle);
      constexpr int kComputeMajor = 75;
      if (driver().attribute) driver().attribute(&major, kComputeMajor, handle);
      const auto total_bytes = static_cast<std::int64_t>(total);
      all.push_back({fmt::format("cuda:{}", i), "cuda", name, total_bytes,
                     free_by_nvml(handle).value_or(total_bytes), true, major >= 8, 0});
    }
    return all;
  }

  MemoryUse memory(int index) override {
    MemoryUse use;
    const auto stats = allocator().getDeviceStats(static_cast<c10::DeviceIndex>(index));
    constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    use.in_use = stats.allocated_bytes[kAll].current;
    use.peak = stats.allocated_bytes[kAll].peak;
    use.reserved = stats.reserved_bytes[kAll].current;
    c10::DeviceGuard guard(cuda_device(index));
    std::size_t free = 0, total = 0;
    if (runtime().mem_info && runtime().mem_info(&free, &total) == 0) {
      use.free = static_cast<std::int64_t>(free);
      use.total = static_cast<std::int64_t>(total);
    }
    return use;
  }

  void reset_peak(int index) override {
    allocator().resetPeakStats(static_cast<c10::DeviceIndex>(index));
  }
  void empty_cache() override { allocator().emptyCache(); }

  void limit_memory(int index, std::int64_t bytes) override {
    auto& setter = static_cast<torch_abi::FractionSetter&>(allocator());
    const auto device = static_cast<c10::DeviceIndex>(index);
    const double fraction =
        bytes > 0 ? static_cast<double>(bytes) / static_cast<double>(memory(index).total) : 1.0;
    setter.set_fraction(fraction, device);
    if (std::abs(setter.get_fraction(device) - fraction) > 1e-6)
      log::warn_once("this version of torch does not let the memory of a CUDA device be limited");
  }

  std::optional<std::string> register_host(void* start, std::int64_t bytes,
                                           bool read_only) override {
    constexpr unsigned kPortable = 1, kReadOnly = 8;
    if (usable_devices() == 0) return "no NVIDIA device";
    if (!runtime().host_register || !runtime().host_unregister)
      return "the CUDA runtime offers no registration";
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    const int error = runtime().host_register(start, static_cast<std::size_t>(bytes),
                                              kPortable | (read_only ? kReadOnly : 0));
    if (error == 0) return std::nullopt;
    if (runtime().last_error)
      runtime().last_error();  // or torch finds this error at its next launch
    return fmt::format("CUDA error {}: {}", error,
                       runtime().error_text ? runtime().error_text(error) : "unknown");
  }

  void unregister_host(void* start) noexcept override {
    if (runtime().host_unregister && runtime().host_unregister(start) != 0 && runtime().last_error)
      runtime().last_error();
  }

  // torch refuses to copy from host memory that it did not lock itself while a graph is recorded.
  bool copy_from_host(void* to, const void* from, std::int64_t bytes,
                      const c10::Stream& stream) override {
    // CUDAStream is a c10::Stream and nothing else; this function of it gives the runtime's stream.
    static const auto native = reinterpret_cast<void* (*)(const c10::Stream*)>(
        dlsym(RTLD_DEFAULT, "_ZNK3c104cuda10CUDAStream6streamEv"));
    if (!native || !runtime().copy_async) return false;
    constexpr int kHostToDevice = 1;
    c10::DeviceGuard guard(stream.device());
    const int error = runtime().copy_async(to, from, static_cast<std::size_t>(bytes), kHostToDevice,
                                           native(&stream));
    if (error == 0) return true;
    if (runtime().last_error) runtime().last_error();
    throw Error(ErrorKind::Internal, name_of(stream.device()),
                fmt::format("a copy from host memory failed: CUDA error {}: {}", error,
                            runtime().error_text ? runtime().error_text(error) : "unknown"));
  }

  std::unique_ptr<Recording> record(int index, const std::function<at::Tensor()>& body,
                                    const Recording* beside) override {
    if (!torch_graph().complete()) {
      log::warn_once("this version of torch offers no CUDA graphs; steps are issued one by one");
      return nullptr;
    }
    const auto device = cuda_device(index);
    c10::DeviceGuard guard(device);
    synchronize(device);
    empty_cache();
    auto recording =
        std::make_unique<CudaRecording>(device, static_cast<const CudaRecording*>(beside));
    try {
      recording->capture(body);
    } catch (const std::exception& error) {
      if (runtime().last_error) runtime().last_error();
      log::warn_once(fmt::format(
          "a step could not be recorded and is issued operation by operation: {}", error.what()));
      return nullptr;
    }
    return recording;
  }
};

}  // namespace

Kind& cuda_kind() {
  static CudaKind kind;
  return kind;
}

}  // namespace distorch::device
