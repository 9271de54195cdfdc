#pragma once
#include "distorch/server/prompts.h"
#include "distorch/server/router.h"

namespace distorch::server {

/// GET /api/jobs, GET /api/jobs/{id}, POST /api/jobs/{id}/cancel, POST /api/jobs/cancel.
void add_jobs_routes(Router& router, Prompts& prompts);

}  // namespace distorch::server
