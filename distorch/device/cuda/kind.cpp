#include <ATen/Context.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/cuda/libraries.h"
#include "distorch/device/cuda/recording.h"
#include "distorch/device/kind.h"
#include "distorch/device/streams.h"

// NVIDIA devices, found at run time: the driver by its library, torch's CUDA half from beside
// torch_cpu.
namespace distorch::device {
namespace {

using namespace cuda;

// libtorch_cuda lies in the folder of libc10.
bool load_torch_cuda() {
  const auto folder = torch_folder();
  if (folder.empty()) return false;
  const auto library = folder + "/libtorch_cuda.so";
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) return true;
  const char* reason = dlerror();
  log::warn_once(
      fmt::format("an NVIDIA driver is present, but torch's CUDA library cannot be loaded, so its "
                  "devices are not used ({})",
                  reason ? reason : library));
  return false;
}

bool load_module() {
  const auto problem = open_module(module_files());
  if (problem.empty()) return true;
  log::warn_once("an NVIDIA driver is present, but its devices are not used: " + problem);
  return false;
}

int usable_devices() {
  static const int count = [] {
    const int n = driver().devices();
    return n > 0 && load_torch_cuda() && load_module() ? n : 0;
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

// Whether the driver maps the device's memory where it is told to, in the way that torch asks for:
// below WSL it says so and refuses (pytorch issue 192330).
bool maps_memory(int index) {
  if (std::filesystem::exists("/dev/dxg")) return false;
  constexpr int kMapsMemory = 102;  // CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
  int handle = 0, maps = 0;
  return driver().attribute && driver().get(&handle, index) == 0 &&
         driver().attribute(&maps, kMapsMemory, handle) == 0 && maps;
}

// 9 of compute capability 9.0, Hopper; 0 where the driver cannot tell.
int compute_major(int index) {
  constexpr int kComputeMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
  int handle = 0, major = 0;
  if (!driver().attribute || driver().get(&handle, index) != 0 ||
      driver().attribute(&major, kComputeMajor, handle) != 0)
    return 0;
  return major;
}

// A context keeps a stack of 1 KiB for every thread that all multiprocessors could run: 277 MB of an
// H200. A quarter is enough for nearly all of torch's, cuBLAS's and cuDNN's kernels; for the others the
// driver makes it larger. `index`: of the current device.
void keep_small_stacks(int index) {
  constexpr int kStackBytes = 0;  // CU_LIMIT_STACK_SIZE
  constexpr std::size_t enough = 256;
  static std::mutex mutex;
  static std::set<int> done;
  std::lock_guard lock(mutex);
  if (!driver().set_limit || done.count(index)) return;
  if (in_context([] { return driver().set_limit(kStackBytes, enough); }) == 0) done.insert(index);
}

c10::DeviceAllocator& allocator() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return *c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

c10::Device cuda_device(int index) {
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

class CudaKind final : public Kind {
 public:
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }

  void avoid_holes(bool tight) override {
    if (std::getenv("PYTORCH_CUDA_ALLOC_CONF") || std::getenv("PYTORCH_ALLOC_CONF")) return;
    static const bool maps = usable_devices() == 1 && maps_memory(0);
    if (!maps && !tight) return;
    static std::once_flag once;
    std::call_once(once, [] {
      allocator();  // must be there, or it would read its settings anew
      c10::CachingAllocator::setAllocatorSettings(maps ? "expandable_segments:True"
                                                       : "max_split_size_mb:64");
    });
  }

  // The context lives as long as the process, as torch's own hold on it does.
  void wake(int index) override {
    static std::jthread waking;  // joined when the process ends
    waking = std::jthread([index] {
      int handle = 0;
      void* context = nullptr;
      const auto& d = driver();
      if (index < d.devices() && d.retain_context && d.get(&handle, index) == 0)
        d.retain_context(&context, handle);
    });
  }

  std::vector<DeviceInfo> list() override {
    std::vector<DeviceInfo> all;
    for (int i = 0; i < usable_devices(); ++i) {
      int handle = 0;
      char name[128] = {};
      std::size_t total = 0;
      if (driver().get(&handle, i) != 0) continue;
      driver().name(name, sizeof name, handle);
      driver().total(&total, handle);
      const auto total_bytes = static_cast<std::int64_t>(total);
      all.push_back({fmt::format("cuda:{}", i), "cuda", name, total_bytes,
                     free_by_nvml(handle).value_or(total_bytes), true, compute_major(i) >= 8, 0});
    }
    return all;
  }

  std::int64_t workspace_bytes(int index) override {
    constexpr int kStreams = 2, kHopper = 9;
    constexpr std::int64_t KiB = 1024, large = 8 * 4096 * KiB,
                           small = 2 * 4096 * KiB + 8 * 16 * KiB;
    const int major = compute_major(index);
    return major == 0 ? 0 : kStreams * (major >= kHopper ? large : small);
  }

  MemoryUse memory(int index) override {
    MemoryUse use;
    const auto stats = allocator().getDeviceStats(static_cast<c10::DeviceIndex>(index));
    constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    use.in_use = stats.allocated_bytes[kAll].current;
    use.peak = stats.allocated_bytes[kAll].peak;
    use.reserved = stats.reserved_bytes[kAll].current;
    c10::DeviceGuard guard(cuda_device(index));
    keep_small_stacks(index);
    std::size_t free = 0, total = 0;
    if (module().memory(free, total) == 0) {
      use.free = static_cast<std::int64_t>(free);
      use.total = static_cast<std::int64_t>(total);
    }
    return use;
  }

  void reset_peak(int index) override {
    allocator().resetPeakStats(static_cast<c10::DeviceIndex>(index));
  }
  // What is mapped is waited for on the stream that it belongs to before it goes: not on one that is
  // recorded.
  void empty_cache() override {
    if (!is_recording()) allocator().emptyCache();
  }

  void limit_memory(int index, std::int64_t bytes) override {
    allocator();  // must be there
    const double share =
        bytes > 0 ? static_cast<double>(bytes) / static_cast<double>(memory(index).total) : 1.0;
    module().limit_share(index, share);
  }

  std::optional<std::string> register_host(void* start, std::int64_t bytes,
                                           bool read_only) override {
    if (usable_devices() == 0) return "no NVIDIA device";
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    const int error = module().register_host(start, static_cast<std::size_t>(bytes), read_only);
    if (error == 0) return std::nullopt;
    module().forget_error();
    return module().text_of(error);
  }

  void unregister_host(void* start) noexcept override {
    if (module().unregister_host(start) != 0) module().forget_error();
  }

  // Without torch's bookkeeping of host memory that it did not lock itself.
  bool copy_from_host(void* to, const void* from, std::int64_t bytes,
                      const c10::Stream& stream) override {
    c10::DeviceGuard guard(stream.device());
    const int error =
        module().copy_from_host(to, from, static_cast<std::size_t>(bytes), module().stream(stream));
    if (error == 0) return true;
    module().forget_error();
    throw Error(ErrorKind::Internal, name_of(stream.device()),
                "a copy from host memory failed: " + module().text_of(error));
  }

  bool copy_from_host(const std::vector<HostCopy>& copies, const c10::Stream& stream) override {
    if (!driver().copy_batch) return false;
    std::vector<std::uint64_t> to, from;
    std::vector<std::size_t> bytes;
    for (const auto& copy : copies) {
      to.push_back(reinterpret_cast<std::uintptr_t>(copy.to));
      from.push_back(reinterpret_cast<std::uintptr_t>(copy.from));
      bytes.push_back(copy.bytes);
    }
    constexpr CopyAttributes attributes;
    constexpr std::size_t first = 0;
    c10::DeviceGuard guard(stream.device());
    // Where the driver refuses, the copies are made one by one, and tell what is wrong.
    return in_context([&] {
             return driver().copy_batch(to.data(), from.data(), bytes.data(), bytes.size(),
                                        &attributes, &first, 1, module().stream(stream));
           }) == 0;
  }

  // Not everywhere: Windows' driver, below WSL too, may lack it.
  bool can_count(void* word, const c10::Stream& stream) override {
    return driver().write_value && driver().wait_value &&
           on_counter(driver().write_value, word, 0, stream) == 0 &&
           on_counter(driver().wait_value, word, 0, stream) == 0;
  }

  // Dependencies that CUDA does not see must not run against the order of issue, or streams that
  // share a queue of the hardware would wait for each other: a count is awaited after its raise.
  void set_counter(void* word, std::uint32_t count, const c10::Stream& stream) override {
    check(on_counter(driver().write_value, word, count, stream), stream);
  }
  void wait_counter(const void* word, std::uint32_t count, const c10::Stream& stream) override {
    check(on_counter(driver().wait_value, word, count, stream), stream);
  }

  // Torch makes all 32 streams of a pool with the first, at 2 MB each. Here each is made when it is
  // asked for, and the first ones are given again after so many, or where there is no room for more.
  c10::Stream new_stream(c10::Device device, bool high_priority) override {
    constexpr std::size_t most = 32;
    struct Pool {
      std::vector<c10::Stream> streams;
      std::size_t given = 0;
    };
    static std::mutex mutex;
    static std::map<std::pair<int, bool>, Pool> pools;
    const c10::DeviceGuard guard(device);
    std::lock_guard lock(mutex);
    auto& pool = pools[{guard.current_device().index(), high_priority}];
    try {
      if (pool.streams.size() < most) pool.streams.push_back(module().new_stream(high_priority));
    } catch (const std::exception& error) {
      if (pool.streams.empty() || !is_out_of_memory(error)) throw;
      module().forget_error();
    }
    return pool.streams[pool.given++ % pool.streams.size()];
  }

  std::unique_ptr<Recording> record(int index, const std::function<at::Tensor()>& body,
                                    const Recording* beside) override {
    return cuda::record(cuda_device(index), body, beside);
  }

 private:
  // The flags are 0: a wait ends when the word is not before the count, a write comes after all
  // else that its stream has written.
  static int on_counter(int (*function)(void*, std::uint64_t, std::uint32_t, unsigned),
                        const void* word, std::uint32_t count, const c10::Stream& stream) {
    c10::DeviceGuard guard(stream.device());
    return in_context([&] {
      return function(module().stream(stream), reinterpret_cast<std::uintptr_t>(word), count, 0);
    });
  }
  static void check(int error, const c10::Stream& stream) {
    if (error != 0)
      throw Error(ErrorKind::Internal, name_of(stream.device()),
                  fmt::format("streams could not be ordered (driver error {})", error));
  }
};

}  // namespace

Kind& cuda_kind() {
  static CudaKind kind;
  return kind;
}

}  // namespace distorch::device
