#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

/// The SIGBUS handler behind MappedFile. Private to this folder.
namespace distorch::formats {

/// What the handler knows of one mapping. Rows are never freed, only reused, so that the handler
/// can walk their list at any moment without a lock.
struct FaultWatch {
  std::atomic<std::uintptr_t> begin{0};  // 0: row is free
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> lost_pages{false};  // set by the handler: zeros stand where the file was
  FaultWatch* next = nullptr;
};

/// Registers [begin, begin + size); installs the handler at the first call.
FaultWatch* watch_faults(const void* begin, std::size_t size);
/// To be called before the mapping is removed.
void unwatch_faults(FaultWatch* watch);

/// memcpy out of a mapping; false if a page of the source is lost (nothing is said about `to`
/// then).
bool guarded_copy(void* to, const void* from, std::size_t size);
/// Touches every page of [from, from + size); false if one is lost.
bool guarded_touch(const void* from, std::size_t size);

}  // namespace distorch::formats
