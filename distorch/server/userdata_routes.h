#pragma once
#include "distorch/server/router.h"
#include "distorch/server/users.h"

namespace distorch::server {

struct UserdataState {
  Users& users;
};

/// GET and POST /users; GET /userdata and /v2/userdata: lists of a user's files; GET, POST and
/// DELETE /userdata/{file}: one of them; POST /userdata/{file}/move/{dest}. Files are written whole.
/// `state` must outlive the router.
void add_userdata_routes(Router& router, UserdataState& state);

}  // namespace distorch::server
