#include "distorch/server/openapi.h"

#include <set>

#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

TEST_CASE("openapi: every route with its parameters and where it answers") {
  Router router;
  auto nothing = [](const Request&) { return Response::empty(200); };
  router.add({.method = Method::Post,
              .pattern = "/userdata/{file}/move/{dest}",
              .summary = "Moves.",
              .handler = nothing});
  router.add({.pattern = "/docs/{path...}", .mount = Mount::Plain, .handler = nothing});
  router.add({.pattern = "/jobs", .mount = Mount::Api, .handler = nothing});
  router.add(
      {.method = Method::Delete, .pattern = "/jobs", .mount = Mount::Api, .handler = nothing});
  add_openapi_route(router, "0.1.0");
  auto all = json_of(get(router, "/openapi.json"));
  CHECK(all["openapi"] == "3.1.0");
  CHECK(all["info"]["version"] == "0.1.0");
  CHECK(all["paths"].size() == 4);
  auto move = all["paths"]["/userdata/{file}/move/{dest}"]["post"];
  CHECK(move["summary"] == "Moves.");
  CHECK(move["operationId"] == "post_userdata_file_move_dest");
  CHECK(move["parameters"].size() == 2);
  CHECK(move["parameters"][1]["name"] == "dest");
  CHECK(move["parameters"][1]["required"] == true);
  CHECK(move["servers"].dump() == R"([{"url":"/"},{"url":"/api"}])");
  auto docs = all["paths"]["/docs/{path}"]["get"];
  CHECK(docs["parameters"][0]["name"] == "path");
  CHECK(docs["servers"].dump() == R"([{"url":"/"}])");
  CHECK(all["paths"]["/jobs"]["get"]["servers"].dump() == R"([{"url":"/api"}])");
  CHECK(all["paths"]["/jobs"].size() == 2);
  CHECK(!all["paths"]["/jobs"]["get"].contains("parameters"));
  CHECK(move["responses"]["default"]["$ref"] == "#/components/responses/Refusal");
  CHECK(all["components"]["responses"].contains("Refusal"));
}
