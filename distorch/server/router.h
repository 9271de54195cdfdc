#pragma once
#include <string>
#include <vector>

#include "distorch/server/http.h"

namespace distorch::server {

/// Where a route answers: with and without "/api" in front, without only, with only.
enum class Mount { Both, Plain, Api };

struct Route {
  Method method = Method::Get;
  /// "/userdata/{file}/move/{dest}"; a last segment "{path...}" takes the rest with its slashes.
  std::string pattern;
  Mount mount = Mount::Both;
  /// One sentence of ours, for the description of the API (OpenAPI).
  std::string summary;
  Handler handler;
};

/// The list of routes. Filled once at the start, then only read.
class Router {
 public:
  void add(Route route);
  /// Runs the route's handler; HEAD goes to GET's. 404 where no pattern fits, 405 with Allow where
  /// only the method does not. Errors of handlers become answers.
  Response handle(Request request) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace distorch::server
