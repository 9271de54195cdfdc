#pragma once
#include <memory>
#include <mutex>
#include <string>

#include "distorch/graph/catalog.h"
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

/// The text of GET /object_info, made once and again whenever a list of choices changed. For any
/// thread; while it is made others that ask wait for it.
class ObjectInfoText {
 public:
  ObjectInfoText(const graph::Catalog& catalog, const NodeChoices& choices)
      : catalog_(catalog), choices_(choices) {}
  std::shared_ptr<const std::string> get();

 private:
  const graph::Catalog& catalog_;
  const NodeChoices& choices_;
  std::mutex mutex_;
  std::string state_;
  std::shared_ptr<const std::string> text_;
};

struct ObjectInfoState {
  ObjectInfoState(const graph::Catalog& types, const NodeChoices& choices)
      : catalog(types), text(types, choices) {}
  const graph::Catalog& catalog;
  ObjectInfoText text;
};

/// GET /object_info and /object_info/{class}. `state` must outlive the router.
void add_object_info_routes(Router& router, ObjectInfoState& state);

}  // namespace distorch::server
