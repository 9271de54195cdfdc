#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace distorch::device {

/// Streams and events that work the same on CUDA and on the simulated accelerator, and do nothing
/// on the CPU (where every operation is done when it returns).
bool has_streams(c10::Device device);

/// The stream on which operations of this thread run now.
c10::Stream current_stream(c10::Device device);

/// A stream of the device's pool, apart from the current one, for copies. The CPU has only its
/// default stream. Make it current with c10::StreamGuard.
c10::Stream new_stream(c10::Device device, bool high_priority = true);

/// The host waits for everything issued so far on the device or stream.
void synchronize(c10::Device device);
void synchronize(const c10::Stream& stream);

/// A point in a stream. Reusable: record() again moves it. Move-only.
class Event {
 public:
  explicit Event(c10::Device device);
  void record(const c10::Stream& stream);
  /// `stream` waits for the recorded point before it goes on; the host does not. No-op when never
  /// recorded.
  void block(const c10::Stream& stream);
  /// The host waits for the recorded point.
  void synchronize();
  /// True when the point has been reached, or was never recorded.
  bool reached() const;

 private:
  std::optional<c10::Event> event_;
};

/// Counts how often a stream has come to a point, for other streams of the device to wait for: what
/// an Event between them does, by a number in the device's memory where the kind of device can.
/// Around CUDA graphs an event costs the stream that waits 20 to 40 us, a number next to nothing.
/// Any thread may call; all raises are on one stream. Making one waits for the current stream. Does
/// nothing on the CPU.
class Counter {
 public:
  explicit Counter(c10::Device device);
  /// The stream raises the count by one when it comes here; returns the count that it then makes.
  std::uint32_t raise(const c10::Stream& stream);
  /// `stream` waits until the count has been reached; raise() has returned it before. 0: no wait.
  void wait(std::uint32_t count, const c10::Stream& stream);

 private:
  void used_by(const c10::Stream& stream);

  c10::Device device_;
  std::mutex mutex_;
  std::uint32_t count_ = 0;
  at::Tensor word_;                   // int32 [1]; undefined: this kind of device uses events
  std::vector<c10::Stream> streams_;  // that have used it
  std::deque<Event> events_;          // of the latest counts, the last of `count_`
};

/// Copies on `stream` (a stream of the accelerator taking part; of dst's where both are
/// accelerators) without blocking the host. Same shape and dtype. Host memory should be registered
/// or page-locked (registered.h): from pageable memory the copy is slower and the host waits. A
/// copy from another accelerator is ordered with `stream` on both ends and does not queue behind
/// the donor's own computations.
void copy_async(const at::Tensor& dst, const at::Tensor& src, const c10::Stream& stream);

struct Copy {
  at::Tensor dst, src;
};
/// Several copies from host memory as one, in any order among themselves, where the kind of device
/// can do that: its engine then does not stop between them (3 us a copy on an H100).
void copy_async(const std::vector<Copy>& copies, const c10::Stream& stream);

/// Tells the allocator that `stream` uses the tensor's memory too, so that it is not given away
/// before.
void record_stream(const at::Tensor& tensor, const c10::Stream& stream);

/// Says that the host is about to overwrite [start, start+bytes), memory that asynchronous copies
/// may read or write. The simulated accelerator checks that every such copy was waited for
/// (Error(Internal) otherwise); no effect on other devices.
void host_will_write(const void* start, std::int64_t bytes);
/// The same before the host reads what an asynchronous copy wrote.
void host_will_read(const void* start, std::int64_t bytes);

/// Gives the operations that follow on this thread a name in profiles and error messages. Nests.
class NamedScope {
 public:
  explicit NamedScope(std::string name);
  ~NamedScope();
  NamedScope(const NamedScope&) = delete;
  NamedScope& operator=(const NamedScope&) = delete;
  /// "UNet / middle_block.1", the scopes of this thread from outside in; empty when there are none.
  static std::string path();
};

}  // namespace distorch::device
