#include "distorch/server/look_ahead.h"

#include <doctest/doctest.h>

#include <new>

#include "distorch/server/engine_routes.h"
#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;

namespace {

struct NoMachine final : MachineView {
  Json devices() override { return Json::object(); }
  Json plan(const Json&, const std::vector<std::string>&) override { return Json::object(); }
};

struct AheadServer : PromptServer {
  AheadServer() { add_engine_routes(router, state); }
  /// A prompt runs, and stays.
  void start() {
    prompts->worker.start();
    queue_wait("first");
    REQUIRE(eventually([&] { return runner.gate.waiting == 1; }));
  }
  Json known(const char* of) { return get("/distorch/plan").json()[of]; }
  bool state_is(const char* of, const std::string& id, const std::string& word) {
    return eventually([&] {
      auto entry = known(of);
      return entry.is_object() && entry["prompt_id"] == id && entry["state"] == word;
    });
  }
  NoMachine machine;
  EngineState state{*prompts, machine};
};

/// Looks ahead until it is no longer wanted.
Json look_forever(const Job&, const RunToken& token) {
  while (true) {
    token.throw_if_stopped();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

TEST_CASE("look ahead: the next prompt's prediction is told, and goes with it when it runs") {
  AheadServer server;
  server.runner.ahead = [](const Job& job, const RunToken&) -> Json {
    return {{"seconds", 2.5}, {"of", job.id}};
  };
  server.start();
  CHECK(server.known("next").is_null());
  server.queue_wait("second");
  REQUIRE(server.state_is("next", "second", "planned"));
  CHECK(server.known("next")["plan"].dump() == R"({"seconds":2.5,"of":"second"})");
  server.queue_wait("third");
  server.queue_wait("urgent", {{"front", true}});
  REQUIRE(server.state_is("next", "urgent", "planned"));
  server.send(Method::Post, "/interrupt");
  REQUIRE(server.state_is("running", "urgent", "planned"));
  CHECK(server.known("running")["plan"]["of"] == "urgent");
  REQUIRE(server.state_is("next", "second", "planned"));
  server.runner.gate.open = true;
  REQUIRE(server.idle());
  REQUIRE(eventually([&] { return server.known("running").is_null(); }));
}

TEST_CASE("look ahead: it stops with its prompt, and where the prompt begins") {
  AheadServer server;
  server.runner.ahead = look_forever;
  server.start();
  server.queue_wait("second");
  REQUIRE(server.state_is("next", "second", "planning"));
  REQUIRE(eventually([&] { return server.runner.looks() == 1; }));
  server.post("/queue", {{"delete", {"second"}}});
  REQUIRE(eventually([&] { return server.known("next").is_null(); }));
  server.queue_wait("third");
  REQUIRE(server.state_is("next", "third", "planning"));
  REQUIRE(eventually([&] { return server.runner.looks() == 2; }));
  server.send(Method::Post, "/interrupt");
  // It runs although nobody had finished planning it.
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 2; }));
  server.queue_wait("fourth");
  REQUIRE(eventually([&] { return server.runner.looks() == 3; }));
  server.prompts->worker.stop();
  CHECK(server.waiting_ids() == std::vector<std::string>{"third", "fourth"});
}

TEST_CASE("look ahead: a prompt that began unplanned is planned while it runs, until it ends") {
  AheadServer server;
  std::atomic<int> stopped{0};
  server.runner.predicted = [&](const Job& job, const RunToken& token) -> Json {
    if (job.id == "first") return {{"seconds", 7}};
    while (!token.interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++stopped;
    token.throw_if_stopped();
    return nullptr;
  };
  server.start();
  REQUIRE(server.state_is("running", "first", "planned"));
  CHECK(server.known("running")["plan"]["seconds"] == 7);
  server.send(Method::Post, "/interrupt");
  REQUIRE(server.idle());
  server.queue_wait("second");
  REQUIRE(server.state_is("running", "second", "planning"));
  server.runner.gate.open = true;
  REQUIRE(server.idle());
  REQUIRE(eventually([&] { return stopped == 1; }));
  CHECK(server.known("running").is_null());
}

TEST_CASE("look ahead: whatever fails there, no prompt is lost") {
  const std::vector<std::function<void()>> poisons = {
      [] { throw Error(ErrorKind::MissingFile, "model.safetensors", "is gone"); },
      [] { throw std::runtime_error("broken"); }, [] { throw std::bad_alloc(); }, [] { throw 7; }};
  for (const auto& poison : poisons) {
    AheadServer server;
    server.runner.ahead = [&](const Job&, const RunToken&) -> Json {
      poison();
      return nullptr;
    };
    server.start();
    server.queue_wait("second");
    REQUIRE(server.state_is("next", "second", "failed"));
    CHECK_FALSE(server.known("next")["problem"].get<std::string>().empty());
    server.queue_wait("third");
    server.runner.gate.open = true;
    REQUIRE(server.idle());
    for (const char* id : {"first", "second", "third"})
      CHECK(server.get(std::string("/history/") + id).json()[id]["status"]["completed"] == true);
  }
}
