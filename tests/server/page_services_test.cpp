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

TEST_CASE("page services: the version of the page is what the set-up noted beside it") {
  TemporaryFolder folder("versions");
  write(folder.path() / "page.version", "1.58.1\n");
  write(folder.path() / "templates.version", "0.11.97 with pictures\n");
  FakeMessages messages;
  FakeModels models;
  NoDevices machine;
  graph::Catalog catalog;
  PageOptions options;
  options.folders.user = folder.path() / "user";
  options.scripts.page = folder.path() / "page";
  PageServices services(options, catalog, models, machine, machine, messages);
  Router router;
  services.add_routes(router);
  auto system = json_of(get(router, "/system_stats"))["system"];
  CHECK(system["required_frontend_version"] == "1.58.1");
  CHECK(system["installed_templates_version"] == "0.11.97");
  CHECK(system["comfy_package_versions"].size() == 2);
}
