#pragma once
#include "distorch/server/job_v2.h"
#include "distorch/server/router.h"

namespace distorch::server {

struct JobsV2State {
  JobsV2& jobs;
  Assets& assets;
  /// Streams of events at one time; who asks for more is sent to ask again and again instead.
  std::size_t most_streams = 64;
};

/// The newer job API, which a client library ("comfy-sdk") speaks: POST and GET /api/v2/jobs, one
/// job with its graph, its events (text/event-stream) and a way to cancel it; /api/v2/health. What
/// it answers is that of PyPI comfy-api-proxy 0.1.6, without a server between. Beyond that labels may
/// be an object of texts, by which lists are filtered, and lists go on by a cursor. `state` must
/// outlive the router.
void add_jobs_v2_routes(Router& router, JobsV2State& state);

}  // namespace distorch::server
