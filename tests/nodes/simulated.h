#pragma once
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/engine.h"
#include "tests/support/devices.h"

namespace distorch::test {

/// Options of an engine whose first accelerator is sim:0; the rig is installed.
inline streaming::EngineOptions simulated(const Rig& rig = small_rig(2)) {
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  options.default_device = "sim:0";
  return options;
}

}  // namespace distorch::test
