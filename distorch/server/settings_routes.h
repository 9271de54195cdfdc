#pragma once
#include <mutex>

#include "distorch/server/router.h"
#include "distorch/server/users.h"

namespace distorch::server {

struct SettingsState {
  explicit SettingsState(Users& all) : users(all) {}
  Users& users;
  /// One change at a time: each reads the file, changes it and writes it whole.
  std::mutex mutex;
};

/// GET and POST /settings, /settings/{id}: what the page remembers for a user, in
/// comfy.settings.json of the user's folder. A file that is no JSON object counts as none and is
/// put aside before the next change as comfy.settings.json.broken. `state` must outlive the router.
void add_settings_routes(Router& router, SettingsState& state);

}  // namespace distorch::server
