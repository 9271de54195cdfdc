#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <exception>
#include <string>

namespace distorch::device {

/// Memory of one device in bytes. For accelerators `in_use` is what tensors of this process hold
/// (no cached blocks); for the CPU it is the resident set of the process.
struct MemoryUse {
  std::int64_t total = 0;
  // what the system can still give, cached blocks of this process not counted as free
  std::int64_t free = 0;
  std::int64_t in_use = 0;
  std::int64_t peak = 0;  // highest in_use since start or reset_peak
  // held from the system by the caching allocator; = in_use where there is none
  std::int64_t reserved = 0;
  // of the CPU: how much more would be free if this process held nothing. Pages of mapped files are
  // among the free ones already, unless they are page-locked.
  std::int64_t own = 0;
};

MemoryUse memory_use(c10::Device device);
void reset_peak(c10::Device device);

/// Gives cached, unused blocks back to the system.
void empty_cache(c10::Device device);

/// From now on allocations that take the device's memory beyond `bytes` fail with an out-of-memory
/// error. 0 lifts the limit. Ignored for the CPU. Error(Usage) when more than the device has is
/// asked for.
void limit_memory(c10::Device device, std::int64_t bytes);

/// Bytes of RAM that this process can still take before the kernel would have to kill: what is free
/// or can be had by dropping clean file pages, in the system (with its swap) and in each cgroup
/// around the process. Never negative.
std::int64_t host_room();

/// True for torch's out-of-memory errors of any device, std::bad_alloc and Error(OutOfMemory).
bool is_out_of_memory(const std::exception& error);

/// What an error says; of torch's the first line, without where it was raised.
std::string sentence_of(const std::exception& error);

}  // namespace distorch::device
