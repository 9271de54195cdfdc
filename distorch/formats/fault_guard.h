#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

/// The SIGBUS handler behind MappedFile. Private to this folder.
namespace distorch::formats {

/// What the handler knows of one mapping. Rows are never freed, only reused, so that the handler
/// can walk their list at any moment without a lock.
struct FaultWatch {
  // Odd while begin and end change: a reader that sees an odd number, or two different ones before
  // and after, has not met the mapping it looks for, since whoever touches that keeps its row.
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::uintptr_t> begin{0};  // 0: row is free
  std::atomic<std::uintptr_t> end{0};
  // Set by the handler: zeros stand where the file was, from this address on.
  std::atomic<bool> lost_pages{false};
  std::atomic<std::uintptr_t> lost_from{~std::uintptr_t{0}};
  FaultWatch* next = nullptr;
};

/// Registers [begin, begin + size); installs the handler at the first call.
FaultWatch* watch_faults(const void* begin, std::size_t size);
/// To be called before the mapping is removed.
void unwatch_faults(FaultWatch* watch);

/// Where an address lies.
struct WatchedPlace {
  FaultWatch* watch = nullptr;  // null: in no registered mapping
  std::uintptr_t end = 0;       // of the mapping
};
/// May be called at any moment, also in a signal handler.
WatchedPlace watched_place(std::uintptr_t address);

/// Notes that pages from this address on are lost.
void note_lost_pages(FaultWatch& watch, std::uintptr_t from);
/// Takes the notes away; where the first lost page is, the highest address where none is.
std::uintptr_t forget_lost_pages(FaultWatch& watch);

/// memcpy out of a mapping; false if a page of the source is lost (nothing is said about `to`
/// then).
bool guarded_copy(void* to, const void* from, std::size_t size);
/// Touches every page of [from, from + size); false if one is lost.
bool guarded_touch(const void* from, std::size_t size);

}  // namespace distorch::formats
