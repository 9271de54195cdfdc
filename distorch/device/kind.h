#pragma once
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <optional>
#include <string>
#include <vector>

#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/recording.h"
#include "distorch/device/work_log.h"

// The interface behind which every kind of device stands: for device/ only.
namespace distorch::device {

/// From host memory to memory of a device.
struct HostCopy {
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
};

class Kind {
 public:
  virtual ~Kind() = default;
  virtual c10::DeviceType type() const = 0;
  /// device::avoid_holes().
  virtual void avoid_holes(bool /*tight*/) {}
  /// device::wake().
  virtual void wake(int /*index*/) {}
  /// The devices of this kind that are present; none when the kind is absent. Never throws for
  /// absence.
  virtual std::vector<DeviceInfo> list() = 0;
  virtual MemoryUse memory(int index) = 0;
  /// device::workspace_bytes().
  virtual std::int64_t workspace_bytes(int /*index*/) { return 0; }
  virtual void reset_peak(int index) = 0;
  virtual void empty_cache() = 0;
  virtual void limit_memory(int index, std::int64_t bytes) = 0;
  /// Why the memory could not be registered, or nothing when it was.
  virtual std::optional<std::string> register_host(void* start, std::int64_t bytes,
                                                   bool read_only) = 0;
  virtual void unregister_host(void* start) noexcept = 0;
  /// Copies host memory to a device of this kind on `stream` without torch in between. False: this
  /// kind leaves it to torch.
  virtual bool copy_from_host(void* to, const void* from, std::int64_t bytes,
                              const c10::Stream& stream) {
    return false;
  }
  /// The same of several, none empty, as one (streams.h). False: this kind does them one by one.
  virtual bool copy_from_host(const std::vector<HostCopy>& copies, const c10::Stream& stream) {
    return false;
  }
  /// Whether streams of the device can set a word of its memory and wait until it is at least as
  /// large (streams.h, Counter): tried on this one, which is 0. Counts may pass the largest number
  /// and begin again.
  virtual bool can_count(void* word, const c10::Stream& stream) { return false; }
  virtual void set_counter(void* word, std::uint32_t count, const c10::Stream& stream) {}
  virtual void wait_counter(const void* word, std::uint32_t count, const c10::Stream& stream) {}
  /// The stream on which a device sends to others of its kind: apart from the one on which it
  /// computes, the same every time.
  virtual c10::Stream sending_stream(c10::Device device);
  /// device::new_stream().
  virtual c10::Stream new_stream(c10::Device device, bool high_priority);
  /// See streams.h, host_will_write() and host_will_read().
  virtual void host_touches(const void* start, std::int64_t bytes, bool writes) {}
  /// See work_log.h.
  virtual bool logs_its_work() { return false; }
  virtual void log_work(bool on) {}
  virtual std::vector<LoggedWork> logged_work() { return {}; }
  /// See device.h.
  virtual bool computes_as_cpu() { return false; }
  /// See recording.h. Null: this kind has nothing of the sort.
  virtual std::unique_ptr<Recording> record(int index, const std::function<at::Tensor()>& body,
                                            const Recording* beside) {
    return nullptr;
  }
};

/// Who records on this thread: where aside() goes (recording.h).
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void aside(const std::function<void()>& action) = 0;
};
/// Makes a recorder the thread's while it lives.
class RecorderScope {
 public:
  explicit RecorderScope(Recorder& recorder);
  ~RecorderScope();
  RecorderScope(const RecorderScope&) = delete;
  RecorderScope& operator=(const RecorderScope&) = delete;

 private:
  Recorder* before_;
};

// Each in its folder or file: cuda/, sim/, cpu.cpp.
Kind& cuda_kind();
Kind& sim_kind();
Kind& cpu_kind();

/// All kinds, accelerators first.
const std::vector<Kind*>& kinds();
Kind& kind_of(c10::DeviceType type);

}  // namespace distorch::device
