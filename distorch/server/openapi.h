#pragma once
#include "distorch/server/router.h"

namespace distorch::server {

/// An OpenAPI 3.1 description of routes: each with its summary, the parameters of its address, and
/// where it answers (as it is written, below /api, or both).
Json openapi_of(const std::vector<Route>& routes, const std::string& version);

/// GET /openapi.json: the description of every route that the router has when it is asked. The
/// router must not move afterwards.
void add_openapi_route(Router& router, const std::string& version);

}  // namespace distorch::server
