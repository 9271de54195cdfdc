#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>

namespace distorch::device {

/// Memory for large CPU tensors, apart from malloc's heap. Activations come and go; small objects
/// that stay (kernels that oneDNN compiles on the way) settle between them there and keep holes
/// from closing, so that a process grows to much more than it holds at any time. Here blocks are
/// cut from one range of addresses, always from the lowest hole that is large enough, in huge
/// pages. Pages stay once used, but for holes at the end. The pool does not grow beyond what the
/// machine can give: who asks for more gets an error instead of the kernel's kill. Any thread may
/// call.
class HostPool {
 public:
  struct Options {
    std::size_t range_bytes = 0;                    // of addresses; costs nothing until used
    std::size_t kept_bytes = std::size_t{1} << 30;  // of a hole at the end; the rest is given back
    /// Bytes that the process can still get from the system; null: no limit.
    std::function<std::int64_t()> room;
  };
  /// Where the range is not to be had (a limit on addresses), the pool is one without room.
  explicit HostPool(const Options& options);
  ~HostPool();
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  /// A block aligned to 64 bytes; nullptr where no hole is large enough. Error(OutOfMemory) where
  /// one is, but not so much memory: what was taken before and not yet touched counts as used.
  void* take(std::size_t bytes);
  /// Takes back what take() gave.
  void give_back(void* block);
  bool owns(const void* block) const;
  /// Bytes from the start of the range to the end of what may hold pages.
  std::size_t reach() const;

 private:
  void require_room(std::size_t reach);

  std::byte* start_ = nullptr;
  Options options_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::size_t> holes_;            // offset -> bytes
  std::unordered_map<std::size_t, std::size_t> taken_;  // offset -> bytes
  std::size_t reach_ = 0;
  std::size_t checked_ = 0;  // up to where there was room when it was last asked for
};

/// From now on ATen takes CPU tensors of 128 KiB and more from a pool of the process, and malloc
/// keeps what it has got instead of mapping and unmapping it each time. For main(), before there
/// are threads.
void set_up_host_memory();

}  // namespace distorch::device
