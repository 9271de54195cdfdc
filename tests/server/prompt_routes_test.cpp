#include "distorch/server/prompt_routes.h"

#include <doctest/doctest.h>

#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;

namespace {

using Lines = std::vector<std::string>;

const char* kId = "11111111-2222-3333-4444-555555555555";

}  // namespace

TEST_CASE("POST /prompt: the answer, defaults, what is kept") {
  PromptServer server;
  auto answer = server.post("/prompt", {{"prompt", draw_prompt()}, {"client_id", "me"}});
  REQUIRE(answer.status == 200);
  auto json = answer.json();
  CHECK(json["prompt_id"].get<std::string>().size() == 36);
  CHECK(json["number"].dump() == "0");
  CHECK(json["node_errors"].dump() == "{}");
  auto own = server.post("/prompt", {{"prompt", draw_prompt()},
                                     {"prompt_id", kId},
                                     {"number", 7},
                                     {"extra_data", {{"api_key_comfy_org", "secret"}}}});
  CHECK(own.body == std::string(R"({"prompt_id":")") + kId + R"(","number":7.0,"node_errors":{}})");
  auto queue = server.get("/queue").json();
  CHECK(queue["queue_running"].dump() == "[]");
  REQUIRE(queue["queue_pending"].size() == 2);
  auto item = queue["queue_pending"][0];
  CHECK(item[0].dump() == "0");
  CHECK(item[1] == json["prompt_id"]);
  CHECK(item[2].dump() == draw_prompt().dump());
  CHECK(item[3]["client_id"] == "me");
  CHECK(item[3]["create_time"].get<std::int64_t>() > 1700000000000);
  CHECK(item[4].dump() == R"(["9"])");
  CHECK(queue.dump().find("secret") == std::string::npos);
  CHECK(server.get("/prompt").body == R"({"exec_info":{"queue_remaining":2}})");
}

TEST_CASE("POST /prompt: constants are kept as they were converted") {
  PromptServer server;
  Json prompt = {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", "32"}}}}}};
  REQUIRE(server.post("/prompt", {{"prompt", prompt}}).status == 200);
  auto item = server.get("/queue").json()["queue_pending"][0];
  CHECK(item[2]["9"]["inputs"]["seed"].dump() == "32");
}

TEST_CASE("POST /prompt: refusals have the bodies of the protocol") {
  PromptServer server;
  CHECK(server.post("/prompt", Json::object()).body ==
        R"({"error":{"type":"no_prompt","message":"No prompt provided",)"
        R"("details":"No prompt provided","extra_info":{}},"node_errors":{}})");
  Json silent = {{"1", {{"class_type", "Number"}, {"inputs", {{"value", 5}}}}}};
  auto empty = server.post("/prompt", {{"prompt", silent}});
  CHECK(empty.status == 400);
  CHECK(empty.json()["error"]["type"] == "prompt_no_outputs");
  Json wrong = {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", "x"}}}}}};
  auto failed = server.post("/prompt", {{"prompt", wrong}});
  CHECK(failed.status == 400);
  CHECK(failed.json()["error"]["type"] == "prompt_outputs_failed_validation");
  auto node = failed.json()["node_errors"]["9"];
  CHECK(node["class_type"] == "Draw");
  CHECK(node["errors"][0]["type"] == "invalid_input_type");
  CHECK(node["errors"][0]["extra_info"]["input_name"] == "seed");
  CHECK(node["dependent_outputs"].dump() == R"(["9"])");
  auto id = server.post("/prompt", {{"prompt", draw_prompt()}, {"prompt_id", 5}});
  CHECK(id.json()["error"]["type"] == "invalid_prompt_id");
  for (const char* text : {"", "{", "[]", "5", "null", "\"x\""})
    CHECK(server.send(Method::Post, "/prompt", text).status == 400);
  for (const char* field : {"extra_data", "partial_execution_targets", "number"}) {
    auto answer = server.post("/prompt", {{"prompt", draw_prompt()}, {field, "x"}});
    CHECK(answer.status == 400);
    CHECK(answer.json()["error"].get<std::string>().starts_with(field));
  }
  CHECK(server.prompts->queue.remaining() == 0);
}

TEST_CASE("POST /prompt: an id that waits already and a full queue are refused") {
  PromptServer server(2);
  CHECK(server.queue_wait("a").status == 200);
  CHECK(server.queue_wait("a").body ==
        R"({"error":"prompt_id: a is the id of a prompt that waits or runs"})");
  CHECK(server.queue_wait("b").status == 200);
  CHECK(server.queue_wait("c").body ==
        R"({"error":"queue: 2 prompts wait already, no more are taken"})");
}

TEST_CASE("the order of the queue: numbers, front, the counter rises with refused ones too") {
  PromptServer server;
  server.queue_wait("a");
  server.post("/prompt", {{"prompt", Json::object()}});
  auto third = server.queue_wait("b");
  CHECK(third.json()["number"] == 2);
  CHECK(server.queue_wait("c", {{"front", true}}).json()["number"] == -3);
  server.queue_wait("d", {{"number", 1.5}});
  CHECK(server.waiting_ids() == Lines{"c", "a", "d", "b"});
}

TEST_CASE("POST /queue: delete and clear; each change is told to all") {
  PromptServer server;
  for (const char* id : {"a", "b", "c"}) server.queue_wait(id);
  CHECK(server.post("/queue", {{"delete", {"b", "nobody"}}}).status == 200);
  CHECK(server.waiting_ids() == Lines{"a", "c"});
  CHECK(server.post("/queue", {{"clear", true}}).status == 200);
  CHECK(server.waiting_ids().empty());
  CHECK(server.messages.seen_by("x") ==
        Lines{"status 1", "status 2", "status 3", "status 2", "status 0"});
  CHECK(server.post("/queue", {{"delete", "a"}}).status == 400);
}

TEST_CASE("a run: messages in their order, history before the end is told") {
  PromptServer server;
  server.prompts->worker.start();
  Json prompt = {{"1", {{"class_type", "Number"}, {"inputs", {{"value", 5}}}}},
                 {"2", {{"class_type", "Show"}, {"inputs", {{"x", {"1", 0}}}}}}};
  server.post("/prompt", {{"prompt", prompt}, {"client_id", "me"}, {"prompt_id", "p"}});
  REQUIRE(eventually([&] {
    auto seen = server.messages.seen_by("me");
    return !seen.empty() && seen.back() == "executing null";
  }));
  CHECK(server.messages.seen_by("me") ==
        Lines{"status 1", "status 1", "execution_start", "execution_cached", "progress_state",
              "executing 1", "progress_state", "progress_state", "executing 2", "executed 2",
              "progress_state", "execution_success", "status 0", "executing null"});
  CHECK(server.messages.seen_by("you") == Lines{"status 1", "status 1", "status 0"});
  auto entry = server.get("/history/p").json()["p"];
  CHECK(entry["outputs"].dump() == R"({"2":{"text":["5"]}})");
  CHECK(entry["status"]["completed"] == true);
  CHECK(entry["status"]["messages"].size() == 3);

  server.messages.clear();
  server.post("/prompt", {{"prompt", prompt}, {"client_id", "me"}});
  REQUIRE(server.idle());
  REQUIRE(eventually([&] { return server.messages.seen_by("me").back() == "executing null"; }));
  CHECK(server.messages.seen_by("me") == Lines{"status 1", "status 1", "execution_start",
                                               "execution_cached", "executed 2", "progress_state",
                                               "execution_success", "status 0", "executing null"});
}

TEST_CASE("previews: kind 4 before the progress, kind 1 after it") {
  PromptServer server;
  server.prompts->worker.start();
  auto frames_and_progress = [&] {
    Lines lines;
    for (const auto& line : server.messages.seen_by("me"))
      if (line[0] == '#' || line == "progress 9") lines.push_back(line);
    return lines;
  };
  auto run = [&](int seed) {
    server.messages.clear();
    server.post("/prompt", {{"prompt", draw_prompt(seed)}, {"client_id", "me"}});
    REQUIRE(server.idle());
  };
  run(1);
  CHECK(frames_and_progress() == Lines{"progress 9", "#1", "progress 9", "#1"});
  server.messages.features = {{"supports_preview_metadata", true}};
  run(2);
  CHECK(frames_and_progress() == Lines{"#4", "progress 9", "#4", "progress 9"});
}

TEST_CASE("interrupt: the running prompt, only the one named, not what waits") {
  PromptServer server;
  server.prompts->worker.start();
  server.queue_wait("a", {{"client_id", "me"}});
  server.queue_wait("b");
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 1; }));
  CHECK(server.get("/queue").json()["queue_running"][0][1] == "a");
  CHECK(server.post("/interrupt", {{"prompt_id", "b"}}).status == 200);
  CHECK(server.get("/history/a").body == "{}");
  CHECK(server.post("/interrupt", {{"prompt_id", "a"}}).status == 200);
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 2; }));
  auto status = server.get("/history/a").json()["a"]["status"];
  CHECK(status["status_str"] == "error");
  CHECK(status["messages"].back()[0] == "execution_interrupted");
  CHECK(server.send(Method::Post, "/interrupt").status == 200);
  REQUIRE(server.idle());
  CHECK(server.get("/history/b").json()["b"]["status"]["completed"] == false);
  // Without an owner everybody learns of it.
  auto seen = server.messages.seen_by("you");
  CHECK(std::count(seen.begin(), seen.end(), "execution_interrupted") == 1);
  server.send(Method::Post, "/interrupt");
  server.runner.gate.open = true;
  server.queue_wait("c");
  REQUIRE(server.idle());
  CHECK(server.get("/history/c").json()["c"]["status"]["completed"] == true);
}

TEST_CASE("partial execution: only the outputs named") {
  PromptServer server;
  server.prompts->worker.start();
  Json prompt = {{"1", {{"class_type", "Number"}, {"inputs", {{"value", 5}}}}},
                 {"2", {{"class_type", "Show"}, {"inputs", {{"x", {"1", 0}}}}}},
                 {"3", {{"class_type", "Show"}, {"inputs", {{"x", {"1", 0}}, {"tag", "t"}}}}}};
  server.post("/prompt",
              {{"prompt", prompt}, {"prompt_id", "p"}, {"partial_execution_targets", {"3", "1"}}});
  REQUIRE(server.idle());
  auto entry = server.get("/history/p").json()["p"];
  CHECK(entry["outputs"].dump() == R"({"3":{"text":["5"]}})");
  CHECK(entry["prompt"][4].dump() == R"(["3"])");
}

TEST_CASE("POST /free acts when nothing runs; free_memory unloads, too") {
  PromptServer server;
  server.prompts->worker.start();
  server.queue_wait("a");
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 1; }));
  CHECK(server.post("/free", {{"unload_models", true}}).status == 200);
  CHECK(server.runner.models_released == 0);
  server.runner.gate.open = true;
  REQUIRE(eventually([&] { return server.runner.models_released == 1; }));
  CHECK(server.runner.results_released == 0);
  server.post("/free", {{"free_memory", true}});
  REQUIRE(eventually([&] { return server.runner.results_released == 1; }));
  CHECK(server.runner.models_released == 2);
  CHECK(server.post("/free", {{"free_memory", 1}}).status == 400);
}

TEST_CASE("an engine that throws fails the prompt, says so and goes on") {
  PromptServer server;
  server.runner.broken = true;
  server.prompts->worker.start();
  server.queue_wait("a", {{"client_id", "me"}});
  REQUIRE(server.idle());
  auto message = server.get("/history/a").json()["a"]["status"]["messages"][0];
  CHECK(message[0] == "execution_error");
  CHECK(message[1]["exception_message"] == "the engine is broken\n");
  auto seen = server.messages.seen_by("me");
  CHECK(std::count(seen.begin(), seen.end(), "execution_error") == 1);
  server.runner.broken = false;
  server.runner.gate.open = true;
  server.queue_wait("b");
  REQUIRE(server.idle());
  CHECK(server.get("/history/b").json()["b"]["status"]["completed"] == true);
}

TEST_CASE("a stop puts the running prompt back; the next process runs it") {
  PromptServer first;
  first.prompts->worker.start();
  first.queue_wait("a");
  first.queue_wait("b");
  REQUIRE(eventually([&] { return first.runner.gate.waiting == 1; }));
  first.prompts->worker.stop();
  CHECK(first.waiting_ids() == Lines{"a", "b"});
  CHECK(first.get("/history").body == "{}");
}

TEST_CASE("a prompt of an earlier process that is no longer valid fails with its reasons") {
  std::string folder = (std::filesystem::temp_directory_path() / "distorch_again_XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()));
  {
    PromptServer server(100, folder);
    server.queue_wait("good");
    Job job;
    job.id = "bad";
    job.number = 1;
    job.prompt = {{"1", {{"class_type", "Gone"}, {"inputs", Json::object()}}}};
    job.outputs = {"1"};
    server.prompts->store.accept(job);
  }
  {
    PromptServer server(100, folder);
    CHECK(server.waiting_ids() == Lines{"good", "bad"});
    CHECK(server.queue_wait("next").json()["number"] == 2);
    server.runner.gate.open = true;
    server.prompts->worker.start();
    REQUIRE(server.idle());
    CHECK(server.get("/history/good").json()["good"]["status"]["completed"] == true);
    auto error = server.get("/history/bad").json()["bad"]["status"]["messages"][0][1];
    CHECK(error["exception_message"].get<std::string>().find("Gone") != std::string::npos);
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("while one prompt runs the engine looks ahead to the next") {
  PromptServer server;
  server.prompts->worker.start();
  server.queue_wait("a");
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 1; }));
  CHECK(server.runner.looks() == 0);
  server.queue_wait("b");
  REQUIRE(eventually([&] { return server.runner.looks() == 1; }));
  server.runner.gate.open = true;
  REQUIRE(server.idle());
}

TEST_CASE("greeting: the status with the client's id, and the node that its prompt is at") {
  PromptServer server;
  Greeting greeting(*server.prompts);
  server.prompts->worker.start();
  server.queue_wait("a", {{"client_id", "me"}});
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 1; }));
  server.messages.clear();
  greeting.on_open("you");
  greeting.on_open("me");
  auto sent = server.messages.sent();
  REQUIRE(sent.size() == 3);
  CHECK(sent[0].client == "you");
  CHECK(sent[0].data.dump() == R"({"status":{"exec_info":{"queue_remaining":1}},"sid":"you"})");
  CHECK(sent[1].data["sid"] == "me");
  CHECK(sent[2].type == "executing");
  CHECK(sent[2].data.dump() == R"({"node":"1"})");
  server.runner.gate.open = true;
}
