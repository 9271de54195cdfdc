#include "distorch/server/object_info_routes.h"

#include <algorithm>

#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/node_listing.h"

namespace distorch::server {

namespace {

bool never_changes(const graph::NodeType& type) {
  return std::none_of(type.inputs.begin(), type.inputs.end(), [](const graph::Input& input) {
    return input.is_list() && input.choices.dynamic();
  });
}

}  // namespace

std::shared_ptr<const std::string> ObjectInfoText::get() {
  std::lock_guard lock(mutex_);
  // Asked before the lists are read: what changes in between is seen the next time.
  auto state = choices_.state();
  if (!text_ || state != state_) {
    text_ = std::make_shared<const std::string>(made());
    state_ = std::move(state);
  }
  return text_;
}

std::string ObjectInfoText::made() {
  std::string text = "{";
  for (const auto& type : catalog_.all()) {
    auto kept = fixed_.find(type.get());
    if (kept != fixed_.end()) {
      text += kept->second;
      continue;
    }
    auto entry = entry_of(*type);
    text += entry;
    if (never_changes(*type)) fixed_[type.get()] = std::move(entry);
  }
  if (text.back() == ',') text.pop_back();
  return text + "}";
}

std::string ObjectInfoText::entry_of(const graph::NodeType& type) {
  try {
    return graph::json_line(type.name) + ":" + graph::json_line(listed_definition(type)) + ",";
  } catch (const std::exception& problem) {
    log::warn("node type {} is left out of the list: {}", type.name, problem.what());
    return "";
  }
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
                const auto& name = request.parameters.at("class");
                const auto* type = state.catalog.find(name);
                return Response::json(type ? Json{{name, listed_definition(*type)}}
                                           : Json::object());
              }});
}

}  // namespace distorch::server
