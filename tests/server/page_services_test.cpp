#include "distorch/server/page_services.h"

#include <set>

#include "distorch/server/openapi.h"
#include "tests/server/ask.h"
#include "tests/server/fake_messages.h"
#include "tests/server/fake_surroundings.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

namespace {

struct NoDevices : Machine, NodeChoices {
  std::int64_t ram_total() const override { return 1; }
  std::int64_t ram_free() const override { return 1; }
  std::vector<DeviceState> devices() const override { return {}; }
  std::string state() const override { return ""; }
};

}  // namespace

TEST_CASE("page services: every route of theirs answers, is described, and is there once") {
  TemporaryFolder folder("services");
  FakeMessages messages;
  FakeModels models;
  NoDevices machine;
  graph::Catalog catalog;
  PageOptions options;
  options.folders = {folder.path() / "input", folder.path() / "output", folder.path() / "temp",
                     folder.path() / "user"};
  PageServices services(options, catalog, models, machine, machine, messages);
  Router router;
  services.add_routes(router);
  add_openapi_route(router, "0.1.0");
  std::set<std::string> seen;
  for (const auto& route : router.routes()) {
    auto name = std::string(name_of(route.method)) + " " + route.pattern;
    CHECK_MESSAGE(seen.insert(name).second, name);
    CHECK_MESSAGE(!route.summary.empty(), name);
    CHECK_MESSAGE(route.summary.back() == '.', name);
    auto address = (route.mount == Mount::Api ? "/api" : "") + route.pattern;
    // Whatever the parameters are: an answer, never a fault.
    CHECK_MESSAGE(ask(router, route.method, address).status < 500, name);
  }
  for (const char* name :
       {"GET /view", "POST /upload/image", "GET /userdata", "POST /settings/{id}",
        "GET /object_info", "GET /embeddings", "GET /system_stats", "GET /internal/logs/raw",
        "PATCH /internal/logs/subscribe", "GET /users", "GET /openapi.json"})
    CHECK_MESSAGE(seen.count(name) == 1, name);
  CHECK(json_of(get(router, "/features")) == services.features());
}
