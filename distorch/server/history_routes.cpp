#include "distorch/server/history_routes.h"

#include <charconv>

#include "distorch/base/error.h"
#include "distorch/server/prompt_routes.h"

namespace distorch::server {

Response json_text(std::string text) {
  return Response::bytes(std::move(text), "application/json; charset=utf-8");
}

std::optional<std::int64_t> integer_in_query(const Request& request, const std::string& name) {
  auto text = request.in_query(name);
  if (!text) return {};
  std::int64_t number = 0;
  const char* end = text->data() + text->size();
  auto [stop, code] = std::from_chars(text->data(), end, number);
  if (code != std::errc() || stop != end) throw Error(ErrorKind::Usage, name, "must be an integer");
  return number;
}

void add_history_routes(Router& router, Prompts& prompts) {
  router.add({Method::Get, "/history", Mount::Both, "How prompts ended, oldest first.",
              [&prompts](const Request& request) {
                auto most = integer_in_query(request, "max_items");
                auto offset = integer_in_query(request, "offset");
                // A negative offset means the newest ones, as if there were none.
                if (offset && *offset < 0) offset.reset();
                return json_text(prompts.store.history(most, offset));
              }});
  router.add({Method::Get, "/history/{prompt_id}", Mount::Both, "How one prompt ended, or {}.",
              [&prompts](const Request& request) {
                return json_text(prompts.store.history(request.parameters.at("prompt_id")));
              }});
  router.add({Method::Post, "/history", Mount::Both, "Forgets prompts that have ended.",
              [&prompts](const Request& request) {
                auto body = request.json();
                if (!body.is_object())
                  throw Error(ErrorKind::Usage, "body", "is to be a JSON object");
                auto ids = ids_to_delete(body);
                if (wants_clear(body)) prompts.store.forget_all();
                if (!ids.empty()) prompts.store.forget(ids);
                return Response::empty(200);
              }});
}

}  // namespace distorch::server
