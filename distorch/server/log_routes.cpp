#include "distorch/server/log_routes.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "distorch/server/answers.h"

namespace distorch::server {

namespace {

/// Of the terminal that the log is shown on, or the customary size where there is none.
Json terminal_size() {
  winsize size{};
  bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
  return Json{{"cols", known ? size.ws_col : 80}, {"rows", known ? size.ws_row : 24}};
}

Response as_text(LogFeed& feed) {
  std::string all;
  for (const auto& line : feed.lines()) all += line.time + " - " + line.text;
  return Response::json(all);
}

Response as_lines(LogFeed& feed) {
  Json entries = Json::array();
  for (const auto& line : feed.lines()) entries.push_back({{"t", line.time}, {"m", line.text}});
  return Response::json(Json{{"entries", entries}, {"size", terminal_size()}});
}

Response subscribe(const Request& request, LogFeed& feed) {
  auto body = request.json();
  auto has = [&](const char* key) { return body.is_object() && body.contains(key); };
  if (!has("clientId") || !body["clientId"].is_string() || !has("enabled") ||
      !body["enabled"].is_boolean())
    return refusal(400, R"(body: {"clientId": a text, "enabled": true or false} is wanted)");
  auto client = body["clientId"].get<std::string>();
  if (body["enabled"].get<bool>())
    feed.subscribe(client);
  else
    feed.unsubscribe(client);
  return Response::empty(200);
}

}  // namespace

void add_log_routes(Router& router, LogState& state) {
  router.add({.method = Method::Get,
              .pattern = "/internal/logs",
              .mount = Mount::Plain,
              .summary = "The newest lines of the log as one text.",
              .handler = [&](const Request&) { return as_text(state.feed); }});
  router.add({.method = Method::Get,
              .pattern = "/internal/logs/raw",
              .mount = Mount::Plain,
              .summary = "The newest lines of the log, each with its time.",
              .handler = [&](const Request&) { return as_lines(state.feed); }});
  router.add({.method = Method::Patch,
              .pattern = "/internal/logs/subscribe",
              .mount = Mount::Plain,
              .summary = "Starts or stops sending new lines to a client's socket.",
              .handler = [&](const Request& request) { return subscribe(request, state.feed); }});
}

}  // namespace distorch::server
