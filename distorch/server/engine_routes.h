#pragma once
#include "distorch/server/prompts.h"
#include "distorch/server/router.h"

namespace distorch::server {

struct EngineState {
  Prompts& prompts;
  MachineView& machine;
};

/// GET /metrics (Prometheus), GET /health: 200 while prompts are run and kept, else 503;
/// GET /distorch/devices; POST /distorch/plan: what a prompt would take, nothing is run; GET
/// /distorch/plan: what is known beforehand of the running prompt and the next.
/// `state` must outlive the router.
void add_engine_routes(Router& router, EngineState& state);

}  // namespace distorch::server
