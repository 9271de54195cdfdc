#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace distorch::server {

/// What the engine counts, for GET /metrics: totals since the process began, but what is held now.
struct EngineNumbers {
  /// Bytes of weights and buffers that rest on a device now: {"cuda:0": ...}.
  std::map<std::string, std::int64_t> held_bytes;
  /// Bytes that crossed a link: {"cpu -> cuda:0": ...}.
  std::map<std::string, std::int64_t> link_bytes;
  /// Models that were placed anew, and that were found where they were left.
  std::int64_t placed = 0, reused = 0;
  /// Models that made room for others, whole or in part, and the bytes of that room.
  std::int64_t evicted = 0, evicted_bytes = 0, shrunk = 0, shrunk_bytes = 0;
};

}  // namespace distorch::server
