#pragma once
#include "distorch/server/prompts.h"
#include "distorch/server/router.h"

namespace distorch::server {

/// GET and POST /prompt, GET and POST /queue, POST /interrupt, POST /free.
void add_prompt_routes(Router& router, Prompts& prompts);

/// What POST /queue and POST /history have in common: {"clear": true} and {"delete": [id, ...]}.
/// Error(Usage) where `delete` is no list.
bool wants_clear(const Json& body);
std::vector<std::string> ids_to_delete(const Json& body);

}  // namespace distorch::server
