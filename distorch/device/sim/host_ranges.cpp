#include <map>
#include <mutex>

#include "distorch/device/sim/machine.h"

namespace distorch::sim {
namespace {

struct Range {
  std::int64_t bytes;
  bool writable;
};

// Registered host memory of the process, by address. Dry machines see it too: a plan made in a dry
// run copies from the same mappings as the real run.
struct Ranges {
  std::mutex mutex;
  std::map<const char*, Range> by_start;
  std::int64_t total = 0;
  std::int64_t limit = -1;
};

Ranges& ranges() {
  static auto* one = new Ranges;
  return *one;
}

}  // namespace

bool register_range(const void* start, std::int64_t bytes, bool writable) {
  auto& r = ranges();
  std::lock_guard lock(r.mutex);
  if (bytes <= 0 || (r.limit >= 0 && r.total + bytes > r.limit)) return false;
  if (!r.by_start.emplace(static_cast<const char*>(start), Range{bytes, writable}).second)
    return false;
  r.total += bytes;
  return true;
}

void unregister_range(const void* start) {
  auto& r = ranges();
  std::lock_guard lock(r.mutex);
  auto found = r.by_start.find(static_cast<const char*>(start));
  if (found == r.by_start.end()) return;
  r.total -= found->second.bytes;
  r.by_start.erase(found);
}

bool is_registered(const void* start, std::int64_t bytes, bool* writable) {
  auto& r = ranges();
  std::lock_guard lock(r.mutex);
  const auto* begin = static_cast<const char*>(start);
  auto next = r.by_start.upper_bound(begin);
  if (next == r.by_start.begin()) return false;
  const auto& [first, range] = *std::prev(next);
  if (begin + bytes > first + range.bytes) return false;
  if (writable) *writable = range.writable;
  return true;
}

std::int64_t registered_bytes() {
  auto& r = ranges();
  std::lock_guard lock(r.mutex);
  return r.total;
}

void refuse_registration_after(std::int64_t bytes) {
  auto& r = ranges();
  std::lock_guard lock(r.mutex);
  r.limit = bytes;
}

}  // namespace distorch::sim
