#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

namespace distorch::device {

/// Frees at least `bytes` on a device if it can; false where nothing was freed.
using MakeRoom = std::function<bool(c10::Device device, std::int64_t bytes)>;

/// While one lives, a torch operation of the thread that made it which runs out of memory is done
/// again as long as `make_room` frees something on a device that it works on; then it ends in
/// Error(OutOfMemory) with that device. The innermost scope counts. One without a function switches
/// that off: for code whose memory must not be taken from under it, and which makes room itself.
///
/// An operation that changes a tensor in place allocates before it writes, so that it can be done
/// again. Operations of which another one consists are done again on their own.
class RetryScope {
 public:
  explicit RetryScope(MakeRoom make_room = {});
  ~RetryScope();
  RetryScope(const RetryScope&) = delete;
  RetryScope& operator=(const RetryScope&) = delete;

 private:
  friend class Retry;
  MakeRoom make_room_;
  RetryScope* outer_;
};

}  // namespace distorch::device
