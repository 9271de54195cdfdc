#include <new>

#include "distorch/base/error.h"
#include "tests/server/ask.h"
#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using distorch::test::get;
using distorch::test::json_of;

TEST_CASE("out of memory: 507 with the reason, whatever was thrown") {
  Router router;
  router.add({.method = Method::Get,
              .pattern = "/device",
              .summary = "",
              .handler = [](const Request&) -> Response {
                throw Error(ErrorKind::OutOfMemory, "cuda:0", "has 1 GiB, 2 GiB are needed");
              }});
  router.add({.method = Method::Get,
              .pattern = "/host",
              .summary = "",
              .handler = [](const Request&) -> Response { throw std::bad_alloc(); }});
  auto device = get(router, "/device");
  CHECK(device.status == 507);
  CHECK(device.body.find("2 GiB are needed") != std::string::npos);
  CHECK(get(router, "/host").body.find("no memory") != std::string::npos);
  CHECK(get(router, "/host").status == 507);
}

TEST_CASE("out of memory: the prompt fails as the page knows it, models go, the next one runs") {
  testing::PromptServer server;
  server.runner.full = true;
  server.prompts->worker.start();
  server.post("/prompt",
              {{"prompt", testing::draw_prompt()}, {"prompt_id", "a"}, {"client_id", "me"}});
  REQUIRE(server.idle());
  auto message = server.get("/history/a").json()["a"]["status"]["messages"].back();
  CHECK(message[0] == "execution_error");
  CHECK(message[1]["exception_type"] == "OOMError");
  CHECK(message[1]["exception_message"].get<std::string>().find("cuda:0") != std::string::npos);
  REQUIRE(testing::eventually([&] { return server.runner.models_released == 1; }));
  CHECK(server.runner.results_released == 0);
  server.runner.full = false;
  server.post("/prompt", {{"prompt", testing::draw_prompt()}, {"prompt_id", "b"}});
  REQUIRE(server.idle());
  CHECK(server.get("/history/b").json()["b"]["status"]["completed"] == true);
}
