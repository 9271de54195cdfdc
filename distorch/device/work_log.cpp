#include "distorch/device/work_log.h"

#include "distorch/device/kind.h"

namespace distorch::device {

bool logs_its_work(c10::Device device) { return kind_of(device.type()).logs_its_work(); }

void log_work(bool on) {
  for (auto* kind : kinds()) kind->log_work(on);
}

std::vector<LoggedWork> logged_work() {
  std::vector<LoggedWork> all;
  for (auto* kind : kinds())
    for (auto& work : kind->logged_work()) all.push_back(std::move(work));
  return all;
}

}  // namespace distorch::device
