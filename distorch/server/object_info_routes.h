#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "distorch/graph/catalog.h"
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

/// The text of GET /object_info, made once and again whenever a list of choices changed; of types
/// without such lists the text is kept. For any thread; while it is made others that ask wait for
/// it.
class ObjectInfoText {
 public:
  ObjectInfoText(const graph::Catalog& catalog, const NodeChoices& choices)
      : catalog_(catalog), choices_(choices) {}
  std::shared_ptr<const std::string> get();

 private:
  std::string made();
  /// `"name":{...},`; "" for a type whose choices cannot be read.
  std::string entry_of(const graph::NodeType& type);

  const graph::Catalog& catalog_;
  const NodeChoices& choices_;
  std::mutex mutex_;
  std::string state_;
  std::map<const graph::NodeType*, std::string> fixed_;  // entries that never change
  std::shared_ptr<const std::string> text_;
};

struct ObjectInfoState {
  ObjectInfoState(const graph::Catalog& types, const NodeChoices& choices)
      : catalog(types), text(types, choices) {}
  const graph::Catalog& catalog;
  ObjectInfoText text;
};

/// GET /object_info and /object_info/{class}, as node_listing.h lists types. `state` must outlive the
/// router.
void add_object_info_routes(Router& router, ObjectInfoState& state);

}  // namespace distorch::server
