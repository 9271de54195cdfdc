#include "distorch/device/host_pool.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/device/memory.h"

namespace distorch::device {

namespace {

constexpr std::size_t alignment = 64;  // ATen's own
constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Of [start, start + bytes), which begins with a page: how much is in RAM.
std::size_t present_bytes(std::byte* start, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  constexpr std::size_t most_pages = std::size_t{1} << 18;
  std::vector<unsigned char> pages(std::min(most_pages, bytes / page + 1));
  std::size_t present = 0;
  for (std::size_t done = 0; done < bytes; done += most_pages * page) {
    const auto count = (std::min(bytes - done, most_pages * page) + page - 1) / page;
    if (::mincore(start + done, count * page, pages.data()) != 0) continue;
    present += page * static_cast<std::size_t>(std::count_if(
                          pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(count),
                          [](unsigned char state) { return state & 1; }));
  }
  return present;
}

[[noreturn]] void no_room(std::size_t wanted, std::int64_t room) {
  throw Error(ErrorKind::OutOfMemory, "cpu",
              "no RAM for " + human_bytes(static_cast<double>(wanted)) + " more; " +
                  human_bytes(static_cast<double>(std::max<std::int64_t>(room, 0))) +
                  " can still be had");
}

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

/// Small tensors stay with malloc, which is good at them.
class PooledAllocator final : public c10::Allocator {
 public:
  static constexpr std::size_t smallest = std::size_t{128}
                                          << 10;  // where malloc would start to map

  PooledAllocator()
      : pool_({.range_bytes = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                              static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)),
               .room = spare_room}) {}

  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes < smallest) return malloc_.allocate(bytes);
    void* block = pool_.take(bytes);
    if (!block) return beside_pool(bytes);
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  /// Never destroyed: static objects may hold tensors.
  static PooledAllocator& instance() {
    static auto* allocator = new PooledAllocator;
    return *allocator;
  }

 private:
  /// What is left to the rest of the process: its heap, stacks, libraries.
  static std::int64_t spare_room() { return host_room() - (std::int64_t{128} << 20); }

  /// The pool has no such hole, or no range of addresses.
  c10::DataPtr beside_pool(std::size_t bytes) {
    if (const auto room = spare_room(); static_cast<std::int64_t>(bytes) > room)
      no_room(bytes, room);
    try {
      return malloc_.allocate(bytes);
    } catch (const c10::Error&) {
      no_room(bytes, spare_room());
    }
  }

  static void release(void* block) {
    auto& self = instance();
    self.pool_.owns(block) ? self.pool_.give_back(block) : self.malloc_.raw_deleter()(block);
  }

  c10::Allocator& malloc_ = *c10::GetDefaultCPUAllocator();
  HostPool pool_;
};

}  // namespace

HostPool::HostPool(const Options& options) : options_(options) {
  void* range = ::mmap(nullptr, options_.range_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return;
  start_ = static_cast<std::byte*>(range);
  ::madvise(range, options_.range_bytes, MADV_HUGEPAGE);
  holes_[0] = options_.range_bytes;
}

HostPool::~HostPool() {
  if (start_) ::munmap(start_, options_.range_bytes);
}

void* HostPool::take(std::size_t bytes) {
  // One line more: tensors of whole pages would all begin at the same place of a page, and their
  // lines meet in the same sets of the cache.
  auto size = round_up(bytes, alignment) + alignment;
  std::lock_guard lock(mutex_);
  auto hole = std::find_if(holes_.begin(), holes_.end(),
                           [size](const auto& entry) { return entry.second >= size; });
  if (hole == holes_.end()) return nullptr;
  auto [offset, room] = *hole;
  require_room(offset + size);
  holes_.erase(hole);
  if (room > size) holes_[offset + size] = room - size;
  taken_[offset] = size;
  reach_ = std::max(reach_, offset + size);
  return start_ + offset;
}

/// Before the pool reaches so far. The system is not asked for every page: an eighth of what there
/// was, at most 256 MiB, may be used before it is asked again.
void HostPool::require_room(std::size_t reach) {
  if (!options_.room || reach <= reach_ || reach <= checked_) return;
  constexpr std::int64_t most_unasked = std::int64_t{256} << 20;
  const auto untouched = reach_ - std::min(reach_, present_bytes(start_, reach_));
  const auto room = options_.room() - static_cast<std::int64_t>(untouched);
  if (static_cast<std::int64_t>(reach - reach_) > room) no_room(reach - reach_, room);
  const auto left = room - static_cast<std::int64_t>(reach - reach_);
  checked_ = reach + static_cast<std::size_t>(std::min(left / 8, most_unasked));
}

void HostPool::give_back(void* block) {
  std::lock_guard lock(mutex_);
  auto taken = taken_.find(static_cast<std::size_t>(static_cast<std::byte*>(block) - start_));
  auto [begin, end] = std::pair(taken->first, taken->first + taken->second);
  taken_.erase(taken);
  auto next = holes_.lower_bound(begin);
  if (next != holes_.begin())
    if (auto before = std::prev(next); before->first + before->second == begin) {
      begin = before->first;
      holes_.erase(before);
    }
  if (next != holes_.end() && next->first == end) {
    end += next->second;
    holes_.erase(next);
  }
  holes_[begin] = end - begin;
  if (end < reach_ || reach_ - begin <= options_.kept_bytes) return;
  auto kept = round_up(begin + options_.kept_bytes, huge_page);
  if (kept >= reach_) return;
  auto pages = std::min(round_up(reach_ - kept, huge_page), options_.range_bytes - kept);
  ::madvise(start_ + kept, pages, MADV_DONTNEED);
  reach_ = checked_ = kept;
}

bool HostPool::owns(const void* block) const {
  auto* at = static_cast<const std::byte*>(block);
  return start_ && at >= start_ && at < start_ + options_.range_bytes;
}

std::size_t HostPool::reach() const {
  std::lock_guard lock(mutex_);
  return reach_;
}

void set_up_host_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  c10::SetCPUAllocator(&PooledAllocator::instance());
}

}  // namespace distorch::device
