#pragma once
#include "distorch/server/prompts.h"
#include "distorch/server/router.h"

namespace distorch::server {

/// GET /history, GET /history/{prompt_id}, POST /history.
void add_history_routes(Router& router, Prompts& prompts);

/// A JSON text that is there already.
Response json_text(std::string text);

/// An integer of the address; nothing where it is absent. Error(Usage) where it is none.
std::optional<std::int64_t> integer_in_query(const Request& request, const std::string& name);

}  // namespace distorch::server
