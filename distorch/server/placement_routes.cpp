#include "distorch/server/placement_routes.h"

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/hash.h"
#include "distorch/server/web/scripts.h"

namespace distorch::server {

namespace {

constexpr const char* kScript = "/extensions/distorch/placement.js";

/// {"client_id": text, "enabled": true or false}
Response subscribe(PlacementFeed& feed, const Request& request) {
  auto body = request.json();
  auto field = [&](const char* name) {
    auto found = body.is_object() ? body.find(name) : body.end();
    return body.is_object() && found != body.end() ? *found : Json();
  };
  auto client = field("client_id"), enabled = field("enabled");
  if (!client.is_string())
    throw Error(ErrorKind::Usage, "client_id", "is to be the id of a client's socket");
  if (!enabled.is_boolean() && !enabled.is_null())
    throw Error(ErrorKind::Usage, "enabled", "is to be true or false");
  if (enabled == false)
    feed.unsubscribe(client.get<std::string>());
  else
    feed.subscribe(client.get<std::string>());
  return Response::json(feed.now());
}

Response script() {
  static const std::string etag = "\"" + hex(digest(kPlacementScript)) + "\"";
  return Response::bytes(kPlacementScript, "text/javascript; charset=utf-8")
      .with("ETag", etag)
      .with("Cache-Control", "no-cache");
}

}  // namespace

void PlacementFeed::subscribe(const std::string& client) {
  if (client.empty()) throw Error(ErrorKind::Usage, "client_id", "is empty");
  constexpr std::size_t kMost = 1000;
  std::lock_guard lock(mutex_);
  std::erase(clients_, client);
  if (clients_.size() == kMost) clients_.erase(clients_.begin());
  clients_.push_back(client);
}

void PlacementFeed::unsubscribe(const std::string& client) {
  std::lock_guard lock(mutex_);
  std::erase(clients_, client);
}

bool PlacementFeed::is_watched() const {
  std::lock_guard lock(mutex_);
  return !clients_.empty();
}

void PlacementFeed::send() {
  std::vector<std::string> clients;
  {
    std::lock_guard lock(mutex_);
    clients = clients_;
  }
  if (clients.empty()) return;
  auto placement = now_();
  for (const auto& client : clients) messages_.send(client, "distorch_placement", placement);
}

std::vector<std::string> own_scripts() { return {kScript}; }

void add_placement_routes(Router& router, PlacementFeed& feed) {
  router.add({.pattern = "/distorch/placement",
              .summary = "Where models rest, what links carried, and how the run goes.",
              .handler = [&feed](const Request&) { return Response::json(feed.now()); }});
  router.add({.method = Method::Post,
              .pattern = "/distorch/placement/subscribe",
              .summary = "Sends the same to a client's socket at each change, or no longer.",
              .handler = [&feed](const Request& request) { return subscribe(feed, request); }});
  router.add({.pattern = kScript,
              .mount = Mount::Plain,
              .summary = "The script of the page's placement panel.",
              .handler = [](const Request&) { return script(); }});
}

}  // namespace distorch::server
