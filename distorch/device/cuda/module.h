#pragma once
#include <c10/core/Stream.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// What is compiled against torch's own CUDA headers lies in a library of its own, the module
// (module/module.cpp, libdistorch_cuda.so): it is loaded where an NVIDIA driver and torch's CUDA
// half are, so that the same program runs where neither is. For device/cuda only.
namespace distorch::device::cuda {

/// One CUDA graph of torch's.
class Graph {
 public:
  /// Where its memory comes from; {0, 0}: its own.
  using Pool = std::pair<unsigned long long, unsigned long long>;
  virtual ~Graph() = default;
  /// Captures what this thread issues on its current stream; other threads may use the device.
  virtual void begin(Pool pool) = 0;
  virtual void end() = 0;
  virtual void replay() = 0;
  virtual Pool pool() = 0;
};

/// What of CUDA's runtime and of torch's use of it is needed. Numbers that are returned are the
/// runtime's errors, 0 for none. Functions about graphs throw what torch throws.
class Module {
 public:
  virtual ~Module() = default;
  /// The runtime's stream behind a stream of torch.
  virtual void* stream(const c10::Stream& stream) const = 0;
  /// A stream of the current device that none of torch's pools has, of a priority above or as that of
  /// the default stream. It lives as long as the process. Throws what torch throws.
  virtual c10::Stream new_stream(bool high_priority) const = 0;
  /// Makes the current device's context the thread's, in which the driver works: a thread that has
  /// not called the runtime yet has none.
  virtual int enter_context() const = 0;
  /// Memory of the current device in bytes.
  virtual int memory(std::size_t& free, std::size_t& total) const = 0;
  virtual int register_host(void* start, std::size_t bytes, bool read_only) const = 0;
  virtual int unregister_host(void* start) const = 0;
  virtual int copy_from_host(void* to, const void* from, std::size_t bytes, void* stream) const = 0;
  virtual std::string text_of(int error) const = 0;
  /// Or torch finds an error that was dealt with at its next launch.
  virtual void forget_error() const = 0;
  /// Lets torch's allocator take that share of the device's memory, 0 to 1.
  virtual void limit_share(int device, double share) const = 0;
  virtual std::unique_ptr<Graph> graph() const = 0;
};

/// What the module's one function, kModuleFunction, returns a pointer to.
struct ModuleEntry {
  int interface_number = 0;             // kModuleInterface when it was compiled
  const char* torch_version = nullptr;  // of the headers that it was compiled against
  const Module& (*module)() = nullptr;
};
/// To be raised by whoever changes a class above.
constexpr int kModuleInterface = 2;
constexpr const char* kModuleFunction = "distorch_cuda_module";
constexpr const char* kModuleFile = "libdistorch_cuda.so";

/// The module. Only where there are CUDA devices (open_module() has succeeded).
const Module& module();

/// Loads the first of the files that is there and keeps it as module(). Empty, or why it cannot be
/// used: missing, not loadable, or of another build or torch than this program and the libtorch
/// that it runs with. Torch's CUDA half must have been loaded.
std::string open_module(const std::vector<std::filesystem::path>& files);

/// Where the module may lie: beside the program (or the library that this code is part of), or in
/// `lib` beside its folder or the one above.
std::vector<std::filesystem::path> module_files();

/// Why a module cannot be used in this process, which runs with a libtorch of version `loaded` (as
/// torch's TORCH_ABI_VERSION). Empty: it can.
std::string mismatch(const ModuleEntry& entry, std::uint64_t loaded);

}  // namespace distorch::device::cuda
