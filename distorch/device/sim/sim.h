#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/base/rig.h"

/// The simulated accelerator: torch's PrivateUse1 backend under the name "sim". The N-th
/// accelerator of the rig is the device "sim:N"; the rig's host memory is "cpu".
///
/// exec mode computes real numbers with the CPU kernels, bit-identical to them. Dry mode computes
/// and stores nothing: shapes, memory in bytes and time only. Both refuse tensors of other devices
/// as CUDA does, keep to the memory of the rig (c10::OutOfMemoryError beyond it), advance the same
/// virtual clock by the same amounts and check for races. Times are seconds since install or
/// reset_clock.
///
/// The host is one timeline for all threads. Operations never block it; synchronize, item() and
/// copies of pageable host memory do. Kernels of one device run one at a time; copies overlap with
/// them and share links.
namespace distorch::sim {

enum class Mode { Exec, Dry };

struct Options {
  Mode mode = Mode::Exec;
  bool race_check = true;
  bool plans_cpu = false;   // accelerators stand for a CPU: layers take its paths (device.h)
  double host_issue_s = 0;  // host time that issuing one operation costs, beside the rig's
  // of a link's speed, for host memory that is not registered (8.9 of 55.5 GB/s measured)
  double pageable_share = 0.16;
};

class Machine;

/// Device and streams that are current on a thread, by device index.
struct ThreadState {
  int device = 0;
  std::vector<c10::StreamId> streams;
  c10::StreamId stream(int index) const {
    return index < static_cast<int>(streams.size()) ? streams[index] : 0;
  }
};

/// Makes sim:0, sim:1, ... of the rig's accelerators. May be called again: the new rig replaces the
/// old one, and tensors of the old one can only be freed. Not while other threads use sim tensors.
void install(const Rig& rig, Options options = {});
void install(const Rig& rig, Mode mode);
bool installed();
/// Number of sim devices for the calling thread (DryScope counts); 0 when not installed.
int device_count();
/// What the rig calls "sim:<device>": "cuda:0".
std::string rig_name(int device);

/// While it lives, sim devices of the calling thread are those of a machine of its own: fresh
/// clock, empty memory, dry mode. Tensors from outside can be used (as shapes; they count no
/// memory). Scopes nest.
class DryScope {
 public:
  explicit DryScope(const Rig& rig, Options options = {.mode = Mode::Dry});
  DryScope();  // the rig that is installed
  ~DryScope();
  DryScope(const DryScope&) = delete;
  DryScope& operator=(const DryScope&) = delete;

 private:
  std::shared_ptr<Machine> before_;
  ThreadState state_;
};

/// Lets another thread work on the machine of the thread that made `machine` with
/// current_machine().
std::shared_ptr<Machine> current_machine();
class JoinScope {
 public:
  explicit JoinScope(std::shared_ptr<Machine> machine);
  ~JoinScope();
  JoinScope(const JoinScope&) = delete;
  JoinScope& operator=(const JoinScope&) = delete;

 private:
  std::shared_ptr<Machine> before_;
  ThreadState state_;
};

/// True when the calling thread works on shapes only: code that would ask for values (item(), NaN
/// checks) must not.
bool dry();

// --- The virtual clock ---

/// The host's time in seconds.
double now();
/// Time at which everything issued so far is done, on all devices. Waits for it (the host clock
/// moves there).
double finish();
/// Host time and every stream back to 0, totals too; unfinished work is finished first.
void reset_clock();
/// The host does something else for so long (reads a file, computes on the CPU).
void advance_host(double seconds);
/// A transfer that the simulator cannot see, such as a file read into RAM by a thread: occupies the
/// rig's links from -> to ("disk" -> "cpu") for `bytes`, in the order of `stream`. The host does
/// not wait.
void model_transfer(const c10::Stream& stream, const std::string& from, const std::string& to,
                    std::int64_t bytes);

/// One stretch of work. Lanes: "sim:0 compute", "sim:0 stream 3", "cpu->sim:0".
struct Interval {
  std::string lane;
  std::string name;  // operation, with device::NamedScope::path() in front where there is one
  double start_s = 0;
  double end_s = 0;
  std::int64_t bytes = 0;
  std::optional<KernelWork> kernel;  // what decided its time; nothing for a transfer
};
/// Recording is off at first. Switching it on drops what was recorded.
void trace(bool on);
/// What has been recorded and is done by now(), by start time.
std::vector<Interval> intervals();

/// Totals since install or reset_clock.
struct Work {
  std::int64_t operations = 0;
  double flops = 0;
  double busy_s = 0;          // time the device's kernels took
  std::int64_t bytes_in = 0;  // over links into the device
  std::int64_t bytes_out = 0;
};
Work work(int device);

// --- Memory ---

struct Memory {
  std::int64_t total = 0;
  std::int64_t in_use = 0;  // each allocation rounded up to 512 bytes, as CUDA's allocator does
  std::int64_t peak = 0;
  std::int64_t limit = 0;        // = total unless limited
  std::int64_t allocations = 0;  // ever
};
Memory memory(int device);
void reset_peak(int device);
void limit_memory(int device, std::int64_t bytes);  // 0: no limit but the total
/// Host memory registered with the simulated devices now.
std::int64_t registered_bytes();

// --- Faults, for tests ---

/// The device vanishes: whatever uses it from now on throws Error(Internal) that names it. Freeing
/// works.
void fail_device(int device);
/// The n-th allocation from now (1 = the next) on the device fails once with an out-of-memory
/// error.
void fail_allocation(int device, std::int64_t nth);
/// The n-th copy from now over a link into or out of the device fails once, with torch's error that
/// names the device, and moves nothing.
void fail_copy(int device, std::int64_t nth);
/// Whether an allocation or copy that is to fail is still to come.
bool fault_pending(int device);
/// From now until the next install, waits of this kind do nothing: what the race check has to
/// notice.
enum class Waits {
  None,
  OfComputeForOthers,  // of a device's default stream for other streams
  OfOthersForCompute,  // of other streams for a default stream
  OfHostForEvents
};
void lose_waits(Waits which);
/// Registration is refused once more than `bytes` would be registered (0: always; negative: never).
void refuse_registration_after(std::int64_t bytes);

}  // namespace distorch::sim
