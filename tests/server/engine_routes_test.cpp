#include "distorch/server/engine_routes.h"

#include <doctest/doctest.h>

#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;

namespace {

struct FakeMachine final : MachineView {
  Json devices() override {
    return {{"devices", {{{"name", "sim:0"}, {"total_bytes", 1000}, {"free_bytes", 400}}}}};
  }
  EngineNumbers numbers() override {
    return {.held_bytes = {{"sim:0", 300}},
            .link_bytes = {{"cpu -> sim:0", 1234567890123}},
            .placed = 3,
            .reused = 5,
            .evicted = 1,
            .evicted_bytes = 77};
  }
  Json plan(const Json& prompt, const std::vector<std::string>& outputs) override {
    return {{"seconds", 1.5}, {"of", outputs}, {"class", prompt[outputs[0]]["class_type"]}};
  }
};

struct EngineServer : PromptServer {
  EngineServer() { add_engine_routes(router, state); }
  FakeMachine machine;
  EngineState state{*prompts, machine};
};

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("metrics: queue, outcomes, nodes and steps, devices") {
  EngineServer server;
  auto text = server.get("/metrics").body;
  CHECK(has_line(text, "distorch_queue_prompts{state=\"waiting\"} 0"));
  CHECK(has_line(text, "distorch_prompts_ended_total{outcome=\"completed\"} 0"));
  CHECK(has_line(text, "distorch_device_free_bytes{device=\"sim:0\"} 400"));
  CHECK(has_line(text, "# TYPE distorch_steps_total counter"));
  server.post("/prompt", {{"prompt", draw_prompt()}});
  server.post("/prompt", {{"prompt", draw_prompt()}});
  server.post("/prompt", {{"prompt", {{"1", {{"class_type", "None"}}}}}});
  CHECK(has_line(server.get("/metrics").body, "distorch_queue_prompts{state=\"waiting\"} 2"));
  server.prompts->worker.start();
  REQUIRE(server.idle());
  text = server.get("/metrics").body;
  CHECK(has_line(text, "distorch_prompts_accepted_total 2"));
  CHECK(has_line(text, "distorch_prompts_refused_total 1"));
  CHECK(has_line(text, "distorch_prompts_ended_total{outcome=\"completed\"} 2"));
  CHECK(has_line(text, "distorch_nodes_run_total 1"));
  CHECK(has_line(text, "distorch_nodes_cached_total 1"));
  CHECK(has_line(text, "distorch_steps_total 2"));
  CHECK(server.get("/api/metrics").status == 404);
}

TEST_CASE("metrics: what the engine holds, moves, keeps and evicts") {
  EngineServer server;
  auto text = server.get("/metrics").body;
  CHECK(has_line(text, "# TYPE distorch_device_held_bytes gauge"));
  CHECK(has_line(text, "distorch_device_held_bytes{device=\"sim:0\"} 300"));
  CHECK(has_line(text, "# TYPE distorch_link_bytes_total counter"));
  CHECK(has_line(text, "distorch_link_bytes_total{link=\"cpu -> sim:0\"} 1234567890123"));
  CHECK(has_line(text, "distorch_models_placed_total 3"));
  CHECK(has_line(text, "distorch_models_reused_total 5"));
  CHECK(has_line(text, "distorch_models_evicted_total 1"));
  CHECK(has_line(text, "distorch_models_evicted_bytes_total 77"));
  CHECK(has_line(text, "distorch_models_shrunk_total 0"));
}

TEST_CASE("health: stopped, running, and what is wrong with the database") {
  EngineServer server;
  CHECK(server.get("/health").status == 503);
  server.prompts->worker.start();
  CHECK(server.get("/health").body == R"({"status":"ok","queue_remaining":0,"history_kept":true})");
  PromptServer second(100, "/proc/distorch");
  FakeMachine machine;
  EngineState state{*second.prompts, machine};
  add_engine_routes(second.router, state);
  second.prompts->worker.start();
  auto health = second.get("/health");
  CHECK(health.status == 200);
  CHECK(health.json()["history_kept"] == false);
  CHECK(health.json()["problem"].get<std::string>().find("cannot be written") != std::string::npos);
}

TEST_CASE("plan: of a prompt, alone or as it is posted; a bad one is refused as by /prompt") {
  EngineServer server;
  CHECK(server.post("/distorch/plan", draw_prompt()).body ==
        R"({"seconds":1.5,"of":["9"],"class":"Draw"})");
  CHECK(server.post("/api/distorch/plan", {{"prompt", draw_prompt()}, {"client_id", "x"}}).body ==
        R"({"seconds":1.5,"of":["9"],"class":"Draw"})");
  Json wrong = {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", "x"}}}}}};
  auto refused = server.post("/distorch/plan", wrong);
  CHECK(refused.status == 400);
  CHECK(refused.json()["node_errors"].contains("9"));
  CHECK(server.send(Method::Post, "/distorch/plan", "[]").status == 400);
  CHECK(server.get("/distorch/devices").json()["devices"][0]["name"] == "sim:0");
}
