#include "distorch/server/api_v2.h"

#include <fmt/format.h>

#include <ctime>

#include "distorch/base/log.h"

namespace distorch::server {

namespace {

Response envelope(int status, const std::string& code, const std::string& message,
                  const Json& details = nullptr) {
  Json error = {{"code", code}, {"message", message}, {"details", details}};
  return Response::json(Json{{"error", std::move(error)}}, status);
}

Response answer_to(const Error& error) {
  if (const auto* refused = dynamic_cast<const RefusedV2*>(&error)) {
    auto answer =
        envelope(refused->status(), refused->code(), refused->sentence(), refused->details());
    constexpr int kTooMany = 429;
    if (refused->status() == kTooMany) answer.with("Retry-After", "5");
    return answer;
  }
  switch (error.kind()) {
    case ErrorKind::MissingFile: return envelope(404, "not_found", error.what());
    case ErrorKind::Usage:
    case ErrorKind::Format: return envelope(422, "invalid_request", error.what());
    case ErrorKind::OutOfMemory: return envelope(507, "no_room", error.what());
    default: break;
  }
  log::error("{}", error.what());
  return envelope(500, "internal_error", error.what());
}

}  // namespace

Handler with_envelope(Handler handler) {
  return [handler = std::move(handler)](const Request& request) {
    try {
      return handler(request);
    } catch (const Error& error) {
      return answer_to(error);
    }
  };
}

Json object_of(const Request& request) {
  Json body;
  try {
    body = request.json();
  } catch (const Error& error) {
    throw RefusedV2(400, "invalid_request", "The body is no JSON: " + error.sentence());
  }
  if (!body.is_object()) throw RefusedV2(400, "invalid_request", "The body is to be an object.");
  return body;
}

std::string iso_time(std::int64_t ms) {
  auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     ms % 1000);
}

std::string base_of(const Request& request, bool encrypted) {
  return (encrypted ? "https://" : "http://") + request.header("host");
}

}  // namespace distorch::server
