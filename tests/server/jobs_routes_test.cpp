#include "distorch/server/jobs_routes.h"

#include <doctest/doctest.h>

#include "tests/server/prompt_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;

namespace {

const char* kA = "aaaaaaaa-0000-4000-8000-000000000001";
const char* kB = "aaaaaaaa-0000-4000-8000-000000000002";
const char* kC = "aaaaaaaa-0000-4000-8000-000000000003";

}  // namespace

TEST_CASE("jobs: one that ended, as a list and alone") {
  PromptServer server;
  server.prompts->worker.start();
  Json info = {{"workflow", {{"id", "w"}}}};
  server.post(
      "/prompt",
      {{"prompt", draw_prompt()}, {"prompt_id", kA}, {"extra_data", {{"extra_pnginfo", info}}}});
  REQUIRE(server.idle());
  auto list = server.get("/api/jobs?status=completed,failed,cancelled&limit=64&offset=0").json();
  CHECK(list["pagination"].dump() == R"({"offset":0,"limit":64,"total":1,"has_more":false})");
  auto job = list["jobs"][0];
  CHECK(job["id"] == kA);
  CHECK(job["status"] == "completed");
  CHECK(job["priority"] == 0);
  CHECK(job["outputs_count"] == 1);
  CHECK(job["previewable_outputs_count"] == 1);
  CHECK(job["workflow_id"] == "w");
  CHECK(job["preview_output"].dump() ==
        R"({"filename":"a_00001_.png","subfolder":"","type":"output","nodeId":"9",)"
        R"("mediaType":"images"})");
  CHECK(job["execution_end_time"] >= job["execution_start_time"]);
  CHECK(!job.contains("execution_error"));
  auto alone = server.get(std::string("/api/jobs/") + kA).json();
  CHECK(alone["workflow"]["prompt"].dump() == draw_prompt().dump());
  CHECK(alone["workflow"]["extra_data"]["extra_pnginfo"] == info);
  CHECK(alone["outputs"]["9"]["images"][0]["filename"] == "a_00001_.png");
  CHECK(alone["execution_status"]["status_str"] == "success");
  CHECK(server.get("/api/jobs/nobody").body == R"({"error":"Job not found"})");
  CHECK(server.get("/api/jobs/nobody").status == 404);
  CHECK(server.get("/jobs").status == 404);
}

TEST_CASE("jobs: a running, a waiting and a cancelled one; cancel in both forms") {
  PromptServer server;
  server.prompts->worker.start();
  for (const char* id : {kA, kB, kC}) server.queue_wait(id);
  REQUIRE(eventually([&] { return server.runner.gate.waiting == 1; }));
  auto states = [&](const char* path) {
    std::string text;
    auto list = server.get(path).json();
    for (const auto& job : list["jobs"])
      text += job["id"].get<std::string>().substr(35) + job["status"].get<std::string>() + " ";
    return text;
  };
  CHECK(states("/api/jobs?status=in_progress,pending&limit=200&sort_order=asc&offset=0") ==
        "1in_progress 2pending 3pending ");
  CHECK(server.get(std::string("/api/jobs/") + kA).json()["status"] == "in_progress");
  CHECK(server.get(std::string("/api/jobs/") + kB).json()["status"] == "pending");
  CHECK(server.post(std::string("/api/jobs/") + kB + "/cancel", nullptr).body ==
        R"({"cancelled":true})");
  CHECK(server.post(std::string("/api/jobs/") + kB + "/cancel", nullptr).body ==
        R"({"cancelled":false})");
  CHECK(server.post("/api/jobs/cancel", {{"job_ids", {kA, kC, kB}}}).body ==
        R"({"cancelled":true})");
  REQUIRE(server.idle());
  CHECK(states("/api/jobs") == "1cancelled ");
  CHECK(server.post("/api/jobs/cancel", {{"job_ids", {kA}}}).body == R"({"cancelled":false})");
}

TEST_CASE("jobs: bad parameters") {
  PromptServer server;
  auto error = [&](const std::string& query) {
    auto answer = server.get("/api/jobs?" + query);
    CHECK(answer.status == 400);
    return answer.json()["error"].get<std::string>();
  };
  CHECK(error("status=odd,pending") ==
        "Invalid status value(s): odd. Valid values: pending, in_progress, completed, failed, "
        "cancelled");
  CHECK(error("sort_by=x") == "sort_by must be 'created_at' or 'execution_duration'");
  CHECK(error("sort_order=x") == "sort_order must be 'asc' or 'desc'");
  CHECK(error("limit=x") == "limit must be an integer");
  CHECK(error("limit=0") == "limit must be a positive integer");
  CHECK(error("offset=1.5") == "offset must be an integer");
  CHECK(server.get("/api/jobs?offset=-3").json()["pagination"]["offset"] == 0);
  CHECK(server.send(Method::Post, "/api/jobs/cancel", "{").body ==
        R"({"error":"Request body must be valid JSON"})");
  CHECK(server.post("/api/jobs/cancel", {{"job_ids", "x"}}).body ==
        R"({"error":"job_ids must be a list"})");
  CHECK(server.post("/api/jobs/cancel", {{"job_ids", {"AAAA", 5}}}).body ==
        R"x({"error":"job_ids contains invalid id(s)","invalid_ids":["AAAA","5"]})x");
}

TEST_CASE("jobs: which output stands for a job, and which count") {
  Job job;
  job.id = "a";
  Outcome outcome;
  auto entry = [&](Json outputs) {
    outcome.outputs = std::move(outputs);
    return job_entry(job, outcome);
  };
  Json text = {{"text", {"hello"}}};
  Json temp = {{"images", {{{"filename", "t.png"}, {"type", "temp"}}}}};
  Json saved = {{"images", {{{"filename", "s.png"}, {"type", "output"}}}}, {"animated", {true}}};
  Json latent = {{"latents", {{{"filename", "x.latent"}, {"type", "output"}}}}};
  auto all = entry({{"1", text}, {"2", temp}, {"3", latent}, {"4", saved}});
  CHECK(all["outputs_count"] == 3);
  CHECK(all["previewable_outputs_count"] == 2);
  CHECK(all["preview_output"]["filename"] == "s.png");
  CHECK(entry({{"1", text}, {"2", temp}})["preview_output"]["filename"] == "t.png");
  CHECK(entry({{"1", text}})["preview_output"].dump() ==
        R"({"content":"hello","nodeId":"1","mediaType":"text"})");
  CHECK(!entry({{"3", latent}}).contains("preview_output"));
  CHECK(entry({{"1", {{"result", {"a.glb"}}}}})["preview_output"]["mediaType"] == "3d");
  auto longer = entry({{"1", {{"text", {std::string(1023, 'x') + "\xc3\xa4yz"}}}}});
  CHECK(longer["preview_output"]["content"].get<std::string>().size() == 1023);
  CHECK(longer["preview_output"]["truncated"] == true);
}
