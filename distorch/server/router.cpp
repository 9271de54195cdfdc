#include "distorch/server/router.h"

#include <algorithm>

#include "distorch/base/log.h"
#include "distorch/server/address.h"

namespace distorch::server {
namespace {

constexpr std::string_view kPrefix = "/api/";

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> result;
  if (!path.empty() && path.front() == '/') path.remove_prefix(1);
  for (;;) {
    const std::size_t slash = path.find('/');
    result.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return result;
    path.remove_prefix(slash + 1);
  }
}

bool is_parameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

// The name in "{path...}", or "" for any other segment.
std::string_view rest_name(std::string_view segment) {
  constexpr std::string_view kDots = "...}";
  if (!is_parameter(segment) || !segment.ends_with(kDots)) return {};
  return segment.substr(1, segment.size() - 1 - kDots.size());
}

struct Match {
  std::map<std::string, std::string> parameters;
  // One letter a segment of the pattern; the greater text is the more exact pattern: a word beats a
  // parameter, a parameter beats the rest.
  std::string exactness;
};

// `path` as it was sent, without the query.
std::optional<Match> match(std::string_view pattern, std::string_view path) {
  const auto wanted = segments_of(pattern);
  const auto given = segments_of(path);
  Match result;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (std::string_view name = rest_name(wanted[i]); !name.empty()) {
      if (i >= given.size()) return std::nullopt;
      result.parameters[std::string(name)] =
          percent_decoded(path.substr(static_cast<std::size_t>(given[i].data() - path.data())));
      result.exactness += 'a';
      return result;
    }
    if (i >= given.size()) return std::nullopt;
    if (is_parameter(wanted[i])) {
      if (given[i].empty()) return std::nullopt;
      result.parameters[std::string(wanted[i].substr(1, wanted[i].size() - 2))] =
          percent_decoded(given[i]);
      result.exactness += 'b';
    } else {
      if (percent_decoded(given[i]) != wanted[i]) return std::nullopt;
      result.exactness += 'c';
    }
  }
  if (given.size() != wanted.size()) return std::nullopt;
  return result;
}

struct Found {
  const Route* route = nullptr;
  Match match;
  // The address that the route sees: without "/api" where it answers with and without it.
  std::string_view path;
};

// What fits this address, whatever the method. A route's own "/api/..." beats the prefix.
std::vector<Found> fitting(const std::vector<Route>& routes, std::string_view path) {
  std::vector<Found> result;
  const bool prefixed = path.starts_with(kPrefix);
  const std::string_view inner = prefixed ? path.substr(kPrefix.size() - 1) : std::string_view();
  for (const Route& route : routes) {
    if (prefixed && route.mount != Mount::Plain)
      if (auto fits = match(route.pattern, inner)) {
        fits->exactness = std::string(1, 'c') + fits->exactness;
        result.push_back({&route, std::move(*fits), route.mount == Mount::Both ? inner : path});
        continue;
      }
    if (route.mount != Mount::Api)
      if (auto fits = match(route.pattern, path))
        result.push_back({&route, std::move(*fits), path});
  }
  return result;
}

Response error_answer(int status, const std::string& sentence) {
  return Response::json(Json{{"error", sentence}}, status);
}

int status_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Usage:
    case ErrorKind::Format: return 400;
    case ErrorKind::MissingFile: return 404;
    case ErrorKind::OutOfMemory: return 507;
    default: return 500;
  }
}

Response run(const Route& route, const Request& request) {
  try {
    return route.handler(request);
  } catch (const Error& error) {
    const int status = status_of(error.kind());
    if (status >= 500)
      log::error("{} {}: {}", name_of(request.method), route.pattern, error.what());
    return error_answer(status, error.what());
  } catch (const std::bad_alloc&) {
    log::error("{} {}: out of memory", name_of(request.method), route.pattern);
    return error_answer(507, "the host has no memory for this now");
  } catch (const std::exception& error) {
    log::error("{} {}: {}", name_of(request.method), route.pattern, error.what());
    return error_answer(500, error.what());
  }
}

std::string allowed(const std::vector<Found>& candidates) {
  std::vector<std::string> names;
  for (const Found& found : candidates) {
    names.push_back(name_of(found.route->method));
    if (found.route->method == Method::Get) names.push_back(name_of(Method::Head));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string result;
  for (const std::string& name : names) result += (result.empty() ? "" : ", ") + name;
  return result;
}

const Found* best_for(const std::vector<Found>& candidates, Method method) {
  const Found* best = nullptr;
  for (const Found& found : candidates)
    if (found.route->method == method && (!best || found.match.exactness > best->match.exactness))
      best = &found;
  return best;
}

// A query may stand in the address itself; the listener leaves it there.
void split_query(Request& request) {
  const std::size_t mark = request.path.find('?');
  if (mark == std::string::npos) return;
  for (auto& entry : parse_query(std::string_view(request.path).substr(mark + 1)))
    request.query.push_back(std::move(entry));
  request.path.resize(mark);
}

}  // namespace

void Router::add(Route route) {
  if (route.mount == Mount::Api && route.pattern.starts_with(kPrefix))
    route.pattern.erase(0, kPrefix.size() - 1);
  routes_.push_back(std::move(route));
}

Response Router::handle(Request request) const {
  split_query(request);
  const std::string sent = request.path;
  if (sent.empty() || sent.front() != '/' || percent_decoded(sent).find('\0') != std::string::npos)
    return error_answer(400, "the address must begin with '/' and hold no zero byte");
  const std::vector<Found> candidates = fitting(routes_, sent);
  if (candidates.empty()) return error_answer(404, "there is nothing at " + percent_decoded(sent));
  const Found* found = best_for(candidates, request.method);
  if (!found && request.method == Method::Head) found = best_for(candidates, Method::Get);
  if (!found) {
    if (request.method == Method::Options)
      return Response::empty(200).with("Allow", allowed(candidates));
    return error_answer(405, std::string(name_of(request.method)) + " is not for " +
                                 percent_decoded(sent) + "; it takes " + allowed(candidates))
        .with("Allow", allowed(candidates));
  }
  request.path = percent_decoded(found->path);
  request.parameters = found->match.parameters;
  return run(*found->route, request);
}

}  // namespace distorch::server
