#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace distorch::device {

/// One stretch of work of a device that keeps a log of its own, in seconds of its own clock.
struct LoggedWork {
  std::string lane;  // "sim:0 compute", "cpu->sim:0"
  std::string name;  // the operation, with NamedScope::path() in front where there is one
  double start_s = 0;
  double end_s = 0;
  std::int64_t bytes = 0;
};

/// Whether the device logs its work by itself: simulated ones do, because their time is not the
/// host's.
bool logs_its_work(c10::Device device);

/// From now on, or no longer; what was logged before is dropped. No effect where no device logs.
void log_work(bool on);

/// What the devices have logged, by start; waits for what they still do.
std::vector<LoggedWork> logged_work();

}  // namespace distorch::device
