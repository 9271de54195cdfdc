#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "distorch/graph/events.h"
#include "distorch/server/engine_numbers.h"
#include "distorch/server/job.h"

namespace distorch::server {

/// What GET /metrics tells, counted since the process began. Safe to use from any thread.
class Metrics {
 public:
  void accepted();
  void refused();
  void ended(const Outcome& outcome);
  /// Steps, their time, nodes run and nodes answered from the cache.
  void count(const graph::Event& event);

  /// The text format of Prometheus. `waiting` and `running` are prompts; `devices` and `engine` are
  /// what a MachineView gives, the first may be null.
  std::string text(std::size_t waiting, std::size_t running, const Json& devices,
                   const EngineNumbers& engine = {}) const;

 private:
  mutable std::mutex mutex_;
  std::int64_t accepted_ = 0, refused_ = 0;
  std::array<std::int64_t, 3> ended_{};  // completed, failed, cancelled
  double run_seconds_ = 0;
  std::int64_t nodes_run_ = 0, nodes_cached_ = 0;
  std::int64_t steps_ = 0;
  double step_seconds_ = 0;
  double last_s_ = 0;  // when the running node began or made its last step
};

}  // namespace distorch::server
