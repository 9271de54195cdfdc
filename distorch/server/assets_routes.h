#pragma once
#include "distorch/server/jobs_v2_routes.h"

namespace distorch::server {

/// /api/v2/assets: files by their content (POST; from-hash; from-path; HEAD by-hash), what is known
/// of one, its bytes (with ranges) and a way to forget it. Outputs of jobs are assets too. `state`
/// must outlive the router.
void add_assets_routes(Router& router, JobsV2State& state);

}  // namespace distorch::server
