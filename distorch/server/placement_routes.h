#pragma once
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "distorch/server/messages.h"
#include "distorch/server/router.h"

namespace distorch::server {

/// Where models rest and how the run goes, for the clients that asked for it: messages
/// "distorch_placement" with what GET /distorch/placement answers. Safe to call from any thread;
/// waits for no client.
class PlacementFeed {
 public:
  /// `now` makes the answer, on any thread, and must not wait for a load. `messages` must outlive
  /// the feed.
  PlacementFeed(Messages& messages, std::function<Json()> now)
      : messages_(messages), now_(std::move(now)) {}

  /// Of very many clients the newest thousand are kept. Error(Usage) for an empty id.
  void subscribe(const std::string& client);
  void unsubscribe(const std::string& client);
  /// Whether anybody would be told.
  bool is_watched() const;
  /// Tells them how it is now.
  void send();
  Json now() const { return now_(); }

 private:
  Messages& messages_;
  std::function<Json()> now_;
  mutable std::mutex mutex_;
  std::vector<std::string> clients_;  // the newest last
};

/// GET /distorch/placement; POST /distorch/placement/subscribe {"client_id", "enabled"}; and the
/// script of the page's panel, /extensions/distorch/placement.js. `feed` must outlive the router.
void add_placement_routes(Router& router, PlacementFeed& feed);

/// Addresses of the scripts of ours that the page is to import.
std::vector<std::string> own_scripts();

}  // namespace distorch::server
