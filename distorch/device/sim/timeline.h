#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "distorch/base/link_clock.h"
#include "distorch/device/sim/sim.h"

namespace distorch::sim {

/// What a command is called in a profile, and what it moves.
struct Label {
  const std::string* name = nullptr;  // interned, lives as long as the process
  std::int64_t bytes = 0;
  std::optional<KernelWork> kernel;  // nothing for a transfer
};

/// A recorded point of a stream on the virtual clock.
struct Mark {
  bool reached = false;
  double at_s = 0;
};

/// What a transfer takes of a device's memory: seconds by which the next kernel is longer if one
/// runs there when the transfer ends.
struct MemoryShare {
  int device = -1;
  double seconds = 0;
};

/// The virtual clock: streams are queues of kernels, transfers, marks and waits; a discrete-event
/// simulation works them off. It runs lazily: never past the host's time, because what the host
/// issues later may still share a link or a device with what is in flight. Waiting moves the host's
/// time. Not thread-safe; knows nothing of tensors.
class Timeline {
 public:
  Timeline(LinkClock links, int devices);

  /// A new stream; `device` -1 is the host's (transfers only).
  int add_stream(int device, std::string lane);
  /// Runs for `duration_s`, alone on the stream's device.
  void kernel(int stream, double duration_s, const Label& label);
  void transfer(int stream, int route, std::int64_t bytes, const Label& label,
                const MemoryShare& memory = {});
  std::shared_ptr<Mark> record(int stream);
  /// `stream` goes on once the mark is reached.
  void wait(int stream, std::shared_ptr<Mark> mark);

  double host_s() const { return host_s_; }
  void advance_host(double seconds);
  /// Host waits until the stream is empty, the mark is reached, everything is done.
  void finish(int stream);
  void finish(const Mark& mark);
  void finish_all();
  /// Works off everything that happens up to the host's time.
  void catch_up();
  bool idle(int stream);
  /// Finishes everything, then sets time back to 0.
  void reset();

  int route(const std::string& from, const std::string& to) { return links_.route(from, to); }

  void trace(bool on);
  const std::vector<Interval>& intervals() const { return intervals_; }
  /// Seconds that kernels have run on the device.
  double busy_s(int device) const { return devices_[device].busy_s; }
  /// The lane of transfers over a route, for the profile.
  void name_route(int route, const std::string& lane) { route_lanes_[route] = lane; }

 private:
  enum class Kind { Kernel, Transfer, Record, Wait };
  struct Command {
    Kind kind;
    double issue_s;
    std::uint64_t number;   // order of issue, breaks ties
    double duration_s = 0;  // of a kernel
    MemoryShare memory;     // of a transfer
    int route = -1;
    std::int64_t bytes = 0;
    std::shared_ptr<Mark> mark;
    Label label;
  };
  struct Stream {
    int device;
    std::string lane;
    std::deque<Command> queue;  // front runs when `running`
    bool running = false;
    double start_s = 0, end_s = 0;  // of the running command; end of kernels only
    int flow = -1;
  };
  struct Device {
    bool busy = false;
    double busy_s = 0;
    double owed_s = 0;  // to transfers that ended while it was busy; the next kernel takes longer
  };

  Command& push(int stream, Kind kind);
  void start_ready();
  bool start_zero_time(Stream& stream);
  void start_kernels();
  double next_event();
  bool step(double limit_s);
  void complete(Stream& stream);

  LinkClock links_;
  std::vector<Stream> streams_;
  std::vector<Device> devices_;
  std::unordered_map<int, int> flow_owner_;  // transfer number -> stream
  std::unordered_map<int, std::string> route_lanes_;
  std::vector<Interval> intervals_;
  double now_s_ = 0;  // simulated up to here; never past host_s_ except while the host waits
  double host_s_ = 0;
  std::uint64_t issued_ = 0;
  bool tracing_ = false;
};

}  // namespace distorch::sim
