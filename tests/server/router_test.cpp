#include "distorch/server/router.h"

#include <doctest/doctest.h>

#include <stdexcept>

#include "distorch/server/address.h"
#include "distorch/server/not_found.h"

using namespace distorch;
using namespace distorch::server;

namespace {

// Answers with what the handler saw.
Route echo(Method method, std::string pattern, Mount mount = Mount::Both) {
  return {.method = method,
          .pattern = pattern,
          .mount = mount,
          .summary = "Says what it was asked.",
          .handler = [pattern](const Request& request) {
            return Response::json({{"route", pattern},
                                   {"path", request.path},
                                   {"parameters", request.parameters},
                                   {"query", request.query}});
          }};
}

Route failing(std::string pattern, std::function<void()> fail) {
  return {.pattern = std::move(pattern), .handler = [fail](const Request&) {
            fail();
            return Response::empty(200);
          }};
}

Json body_of(const Response& response) { return Json::parse(response.body); }

std::string header_of(const Response& response, const std::string& name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

}  // namespace

TEST_CASE("router: a segment is matched as it was sent and decoded once") {
  Router router;
  router.add(echo(Method::Get, "/userdata/{file}"));
  router.add(echo(Method::Post, "/userdata/{file}/move/{dest}"));
  Json got = body_of(router.handle({.path = "/api/userdata/workflows%2Fa%2520b.json"}));
  CHECK(got["parameters"]["file"] == "workflows/a%20b.json");
  CHECK(got["path"] == "/userdata/workflows/a%20b.json");
  got = body_of(router.handle({.method = Method::Post, .path = "/userdata/a/move/b%2Fc"}));
  CHECK(got["parameters"]["dest"] == "b/c");
  CHECK(router.handle({.path = "/userdata/a/b"}).status == 404);
  CHECK(router.handle({.path = "/userdata/"}).status == 404);
}

TEST_CASE("router: routes answer with and without the prefix, or with only one of them") {
  Router router;
  router.add(echo(Method::Get, "/queue"));
  router.add(echo(Method::Get, "/internal/logs", Mount::Plain));
  router.add(echo(Method::Get, "/jobs/{id}", Mount::Api));
  router.add(echo(Method::Get, "/api/tags", Mount::Api));
  CHECK(router.handle({.path = "/queue"}).status == 200);
  CHECK(body_of(router.handle({.path = "/api/queue"}))["path"] == "/queue");
  CHECK(router.handle({.path = "/internal/logs"}).status == 200);
  CHECK(router.handle({.path = "/api/internal/logs"}).status == 404);
  CHECK(router.handle({.path = "/jobs/1"}).status == 404);
  CHECK(body_of(router.handle({.path = "/api/jobs/1"}))["path"] == "/api/jobs/1");
  CHECK(router.handle({.path = "/api/tags"}).status == 200);
}

TEST_CASE("router: the more exact pattern wins, whatever the order") {
  Router router;
  router.add(echo(Method::Get, "/{path...}", Mount::Plain));
  router.add(echo(Method::Get, "/jobs/{id}"));
  router.add(echo(Method::Get, "/jobs/cancel"));
  CHECK(body_of(router.handle({.path = "/jobs/cancel"}))["route"] == "/jobs/cancel");
  CHECK(body_of(router.handle({.path = "/api/jobs/x"}))["route"] == "/jobs/{id}");
  Json rest = body_of(router.handle({.path = "/assets/a%20b/c.js"}));
  CHECK(rest["parameters"]["path"] == "assets/a b/c.js");
  CHECK(body_of(router.handle({.path = "/"}))["parameters"]["path"] == "");
}

TEST_CASE("router: methods") {
  Router router;
  router.add(echo(Method::Get, "/history"));
  router.add(echo(Method::Post, "/history"));
  CHECK(router.handle({.method = Method::Head, .path = "/history"}).status == 200);
  Response refused = router.handle({.method = Method::Delete, .path = "/history"});
  CHECK(refused.status == 405);
  CHECK(header_of(refused, "Allow") == "GET, HEAD, POST");
  CHECK(router.handle({.method = Method::Options, .path = "/history"}).status == 200);
  CHECK(router.handle({.method = Method::Options, .path = "/no"}).status == 404);
}

TEST_CASE("router: a query in the address is read") {
  Router router;
  router.add(echo(Method::Get, "/view"));
  Json got = body_of(router.handle({.path = "/view?filename=a+b%26c.png&type=&flag&&x=1=2"}));
  CHECK(got["query"] ==
        Json::parse(R"([["filename","a b&c.png"],["type",""],["flag",""],["x","1=2"]])"));
}

TEST_CASE("router: errors of handlers become answers") {
  Router router;
  router.add(
      failing("/usage", [] { throw Error(ErrorKind::Usage, "steps", "must be 1 or more"); }));
  router.add(failing("/format", [] { throw Error(ErrorKind::Format, "a.png", "is cut off"); }));
  router.add(failing("/gone", [] { throw NotFound("a.png", "is not in input"); }));
  router.add(failing("/memory", [] { throw Error(ErrorKind::OutOfMemory, "cpu", "is full"); }));
  router.add(failing("/bug", [] { throw std::runtime_error("a bug"); }));
  Response usage = router.handle({.path = "/usage"});
  CHECK(usage.status == 400);
  CHECK(body_of(usage)["error"] == "steps: must be 1 or more");
  CHECK(router.handle({.path = "/format"}).status == 400);
  CHECK(router.handle({.path = "/gone"}).status == 404);
  CHECK(router.handle({.path = "/memory"}).status == 507);
  CHECK(body_of(router.handle({.path = "/bug"}))["error"] == "a bug");
}

TEST_CASE("router: addresses that are none") {
  Router router;
  router.add(echo(Method::Get, "/{path...}"));
  CHECK(router.handle({.path = ""}).status == 400);
  CHECK(router.handle({.path = "x"}).status == 400);
  CHECK(router.handle({.path = "/a%00b"}).status == 400);
  CHECK(body_of(router.handle({.path = "/a%zz%4"}))["path"] == "/a%zz%4");
}

TEST_CASE("request: header, query and body") {
  Request request{.query = {{"a", "1"}, {"a", "2"}}, .headers = {{"content-type", "x"}}};
  CHECK(request.in_query("a") == "1");
  CHECK_FALSE(request.in_query("b"));
  CHECK(request.header("Content-Type") == "x");
  CHECK(request.header("accept") == "");
  request.body = "{\"a\": [1, 2]}";
  CHECK(request.json()["a"][1] == 2);
  request.body = "{\"a\"";
  try {
    request.json();
    FAIL("broken JSON was taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    CHECK(error.where() == "body");
  }
  request.body = std::string(10000, '[');
  CHECK_THROWS_WITH(request.json(), doctest::Contains("deep"));
}

TEST_CASE("address: encoding one segment") {
  CHECK(percent_encoded("a b/\xc3\xa4~") == "a%20b%2F%C3%A4~");
  CHECK(percent_decoded(percent_encoded("%00\n+")) == "%00\n+");
}
