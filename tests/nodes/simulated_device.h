#pragma once
#include "distorch/base/rig.h"
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/engine.h"

namespace distorch::test {

/// An engine on one simulated device of 512 MiB, of which it may use so much.
inline streaming::EngineOptions on_a_simulated_device(std::int64_t budget_bytes) {
  auto rig = parse_rig(R"(
name: test
devices:
  - {name: "cuda:0", memory: 512MiB, tflops: {default: 10}, memory_bandwidth_GBps: 500}
  - {name: cpu, memory: 16GiB, tflops: {default: 0.1}, memory_bandwidth_GBps: 20}
links:
  - {from: cpu, to: "cuda:0", GBps: 10}
)",
                       "test rig");
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  options.default_device = "sim:0";
  options.budgets = {{"sim:0", budget_bytes}};
  return options;
}

}  // namespace distorch::test
