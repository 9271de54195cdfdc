#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/device/sim/race.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/sim/timeline.h"

// Inside of the simulated accelerator: for device/sim only.
namespace distorch::sim {

inline constexpr auto kSim = c10::DeviceType::PrivateUse1;

/// What stands behind the storage of a sim tensor: the context of its DataPtr.
struct Allocation {
  std::shared_ptr<Machine> machine;
  int device = 0;
  int stream = 0;                  // it was allocated for
  std::int64_t counted_bytes = 0;  // as the allocator rounds
  bool is_dry = false;
  c10::Storage host;  // storage of the same bytes: CPU (exec) or Meta (dry)
  AccessLog log;
  std::vector<int> also_used_on;  // record_stream

  Allocation() = default;
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;
  ~Allocation();
};

/// A use of bytes [begin, end) of a block.
struct Touch {
  Allocation* block;
  std::int64_t begin, end;
  bool writes;
};
/// The bytes that a tensor reaches, from its sizes and strides.
Touch touch_of(const at::Tensor& sim_tensor, bool writes);

struct HostUse {
  const void* start = nullptr;
  std::int64_t bytes = 0;
  bool writes = false;
};

/// A point in a stream: in time and in order. Means nothing on another machine.
struct SimEvent {
  std::shared_ptr<Mark> mark;
  Clock clock;
  const Machine* of = nullptr;
  int stream = -1;
};

struct CopyJob {
  std::string from, to;  // "cpu", "sim:0", "disk"
  std::int64_t bytes = 0;
  double slowdown = 1;  // of pageable memory
  bool blocking = false;
};

/// A dtype as rig files spell it.
const char* dtype_name(c10::ScalarType dtype);

/// A name that lives as long as the process, with the place in front where there is one.
const std::string* label_of(const std::string& operation);

/// All simulated devices of one rig: memory, streams, clock, order. Every function locks.
class Machine : public std::enable_shared_from_this<Machine> {
 public:
  Machine(const Rig& rig, Options options);

  const Rig& rig() const { return rig_; }
  const Options& options() const { return options_; }
  bool is_dry() const { return options_.mode == Mode::Dry; }
  int device_count() const { return static_cast<int>(devices_.size()); }
  const RigDevice& description(int device) const { return devices_[device].spec; }

  /// Dense number of a c10 stream, of the calling thread's current one.
  int stream_of(int device, c10::StreamId id);
  int current_stream(int device);
  c10::StreamId new_stream_id(int device);

  /// Counts memory for a new block of the thread's current stream. Throws c10::OutOfMemoryError.
  std::unique_ptr<Allocation> reserve(int device, std::int64_t bytes);
  void release(Allocation& block) noexcept;
  /// The block's memory is held back after its release until the stream is past it.
  void record_use(Allocation& block, int stream);
  /// Changes what a block counts, after its storage was resized.
  void recount(Allocation& block, std::int64_t bytes);

  /// Checks that the device is there. Error(Usage) or Error(Internal).
  void require(int device);
  /// Checks that `uses` are ordered after what they conflict with, and remembers them as the
  /// stream's next operation.
  void use(int stream, const std::string* label, const std::vector<Touch>& uses);
  /// A kernel that takes what base/rig.h says (seconds_of).
  void kernel(int stream, const std::string* label, const KernelWork& work);
  /// A copy over the rig's links.
  void transfer(int stream, const std::string* label, const CopyJob& job, const HostUse& host = {});

  SimEvent record(int stream);
  void wait(int stream, const SimEvent& event);
  void finish(int stream);
  void finish(const SimEvent& event);
  void finish_device(int device);
  void finish_all();
  bool idle(int stream);
  bool reached(const SimEvent& event);
  void host_touches(const HostUse& host);

  double now();
  void advance_host(double seconds);
  void reset_clock();
  void trace(bool on);
  std::vector<Interval> intervals();
  Work work(int device);
  Memory memory(int device);
  void reset_peak(int device);
  void limit_memory(int device, std::int64_t bytes);
  void fail_device(int device);
  void fail_allocation(int device, std::int64_t nth);
  void fail_copy(int device, std::int64_t nth);
  bool fault_pending(int device);
  void lose_waits(Waits which);
  /// Before a copy over a link of the device: where it is the one that is to fail.
  void about_to_copy(int device);

 private:
  struct Ghost {  // freed memory that another stream may still use
    int stream;
    std::int64_t bytes;
    AccessLog log;
    std::vector<int> allowed;
  };
  struct Pending {  // freed memory held back by record_stream
    std::vector<SimEvent> until;
    std::int64_t bytes;
  };
  struct DeviceState {
    RigDevice spec;
    std::string name;  // "sim:0"
    Memory memory;
    Work work;
    bool failed = false;
    std::int64_t fail_in = 0;       // allocations until one fails; 0: none
    std::int64_t fail_copy_in = 0;  // copies until one fails; 0: none
    std::map<c10::StreamId, int> streams;
    c10::StreamId next_stream = 1;
    std::list<Ghost> ghosts;
    std::list<Pending> pending;
  };

  int add_stream(int device, const std::string& lane);
  void release_pending(DeviceState& device, bool wait);
  void make_room(int device, std::int64_t bytes);
  void check_reuse(int device, int stream, std::int64_t bytes);
  [[noreturn]] void race(int device, const Touch& use, int stream, const std::string* label,
                         const Access& earlier) const;
  [[noreturn]] void out_of_memory(const DeviceState& device, std::int64_t bytes) const;
  std::string stream_name(int stream) const;
  bool is_default(int stream);
  int route(const std::string& from, const std::string& to);
  std::string rig_name(const std::string& sim_name) const;

  Rig rig_;
  Options options_;
  std::recursive_mutex mutex_;
  std::vector<DeviceState> devices_;
  Timeline timeline_;
  Order order_;
  Waits lost_ = Waits::None;
  AccessLog host_log_;  // uses of page-locked host memory, by address
  std::vector<std::string> stream_names_;
  std::vector<int> stream_devices_;
};

/// The machine of the calling thread. Error(Internal) before install().
Machine& machine();
std::shared_ptr<Machine> machine_or_null();

ThreadState& thread_state();

// Host memory registered with the simulated devices, for all machines of the process.
bool register_range(const void* start, std::int64_t bytes, bool writable);
void unregister_range(const void* start);
bool is_registered(const void* start, std::int64_t bytes, bool* writable = nullptr);

}  // namespace distorch::sim
