#include "distorch/streaming/link_traffic.h"

#include <mutex>

namespace distorch::streaming {

namespace {

struct Traffic {
  std::mutex mutex;
  std::map<std::string, std::int64_t> bytes;
};

Traffic& traffic() {
  static Traffic of_the_process;
  return of_the_process;
}

}  // namespace

void count_link_bytes(const std::string& from, const std::string& to, std::int64_t bytes) {
  count_link_bytes(from + " -> " + to, bytes);
}

void count_link_bytes(const std::string& lane, std::int64_t bytes) {
  auto& all = traffic();
  std::lock_guard lock(all.mutex);
  all.bytes[lane] += bytes;
}

std::map<std::string, std::int64_t> link_bytes() {
  auto& all = traffic();
  std::lock_guard lock(all.mutex);
  return all.bytes;
}

}  // namespace distorch::streaming
