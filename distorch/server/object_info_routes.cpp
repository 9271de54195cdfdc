#include "distorch/server/object_info_routes.h"

#include "distorch/graph/json_text.h"

namespace distorch::server {

std::shared_ptr<const std::string> ObjectInfoText::get() {
  std::lock_guard lock(mutex_);
  // Asked before the lists are read: what changes in between is seen the next time.
  auto state = choices_.state();
  if (!text_ || state != state_) {
    text_ = std::make_shared<const std::string>(graph::json_line(catalog_.object_info()));
    state_ = std::move(state);
  }
  return text_;
}

void add_object_info_routes(Router& router, ObjectInfoState& state) {
  router.add({.method = Method::Get,
              .pattern = "/object_info",
              .summary = "The definitions of all node types by name.",
              .handler = [&](const Request&) {
                return Response::bytes(*state.text.get(), "application/json; charset=utf-8");
              }});
  router.add({.method = Method::Get,
              .pattern = "/object_info/{class}",
              .summary = "The definition of one node type by its name; an empty object for others.",
              .handler = [&](const Request& request) {
                return Response::json(state.catalog.object_info(request.parameters.at("class")));
              }});
}

}  // namespace distorch::server
