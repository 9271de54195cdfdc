#include "distorch/server/history_routes.h"

#include <doctest/doctest.h>

#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;

TEST_CASE("history: whole, the newest, from an offset, one; deleted and cleared") {
  PromptServer server;
  server.runner.gate.open = true;
  server.prompts->worker.start();
  for (const char* id : {"a", "b", "c"}) server.queue_wait(id);
  REQUIRE(server.idle());
  auto ids = [&](const std::string& path) {
    std::string text;
    auto entries = server.get(path).json();
    for (const auto& [id, entry] : entries.items()) text += id;
    return text;
  };
  CHECK(ids("/history") == "abc");
  CHECK(ids("/api/history?max_items=2") == "bc");
  CHECK(ids("/history?max_items=2&offset=0") == "ab");
  CHECK(ids("/history?max_items=2&offset=-1") == "bc");
  CHECK(ids("/history/b") == "b");
  CHECK(ids("/history/x") == "");
  CHECK(server.get("/history?max_items=x").status == 400);
  CHECK(server.post("/history", {{"delete", {"b"}}}).status == 200);
  CHECK(ids("/history") == "ac");
  CHECK(server.post("/history", {{"clear", true}}).status == 200);
  CHECK(ids("/history") == "");
  CHECK(server.send(Method::Post, "/history", "[]").status == 400);
}
