#pragma once
#include "distorch/server/log_feed.h"
#include "distorch/server/router.h"

namespace distorch::server {

struct LogState {
  LogFeed& feed;
};

/// GET /internal/logs (one text) and /internal/logs/raw (line by line); PATCH
/// /internal/logs/subscribe. `state` must outlive the router.
void add_log_routes(Router& router, LogState& state);

}  // namespace distorch::server
