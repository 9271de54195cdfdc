#pragma once
// The routes of /api/v2 over the small nodes of fake_runner.h, without sockets.
#include <doctest/doctest.h>

#include <fstream>

#include "distorch/server/assets_routes.h"
#include "distorch/server/body_stream.h"
#include "tests/server/ask.h"
#include "tests/server/fake_runner.h"
#include "tests/server/fake_surroundings.h"
#include "tests/support/temporary_folder.h"

namespace distorch::server::testing {

struct V2Server {
  explicit V2Server(const std::string& name, std::size_t most_waiting = 100) : folder(name) {
    std::filesystem::create_directories(folder.path() / "loras");
    models.places["loras"] = {folder.path() / "loras"};
    models.places["custom_nodes"] = {folder.path() / "custom_nodes"};
    start(most_waiting);
  }
  ~V2Server() { stop(); }

  /// Again with what the database has.
  void start(std::size_t most_waiting = 100) {
    router = std::make_unique<Router>();
    prompts =
        std::make_unique<Prompts>(runner, feed,
                                  PromptOptions{.store = {.file = folder.path() / "jobs.sqlite"},
                                                .most_waiting = most_waiting});
    assets = std::make_unique<Assets>(folders, models, folder.path() / "assets.sqlite");
    jobs = std::make_unique<JobsV2>(*prompts, feed, folders);
    state.emplace(JobsV2State{*jobs, *assets, 2});
    add_jobs_v2_routes(*router, *state);
    add_assets_routes(*router, *state);
  }
  void stop() {
    runner.gate.open = true;
    router.reset();
    state.reset();
    jobs.reset();
    assets.reset();
    prompts.reset();
  }

  Response ask(Method method, const std::string& path, const Json& body = nullptr,
               std::map<std::string, std::string> headers = {}) {
    headers["host"] = "here:1";
    return test::ask(*router, method, "/api/v2" + path, body.is_null() ? "" : body.dump(),
                     std::move(headers));
  }
  Response get(const std::string& path) { return ask(Method::Get, path); }
  Response post(const std::string& path, const Json& body = Json::object(),
                std::map<std::string, std::string> headers = {}) {
    return ask(Method::Post, path, body, std::move(headers));
  }
  Response upload(const std::string& content, std::vector<test::Field> fields) {
    fields.push_back({"file", content, "f"});
    return test::ask(*router, Method::Post, "/api/v2/assets", test::form(fields),
                     {{"content-type", test::kFormType}, {"host", "here:1"}});
  }
  /// The job that was made of a graph.
  Json submit(const Json& workflow, Json more = Json::object()) {
    more["workflow"] = workflow;
    return test::json_of(post("/jobs", more), 201);
  }
  Json job(const std::string& id) { return test::json_of(get("/jobs/" + id)); }
  bool reaches(const std::string& id, const std::string& status) {
    return eventually([&] { return job(id)["status"] == status; });
  }

  test::TemporaryFolder folder;
  FileFolders folders{folder.path() / "input", folder.path() / "output", folder.path() / "temp",
                      folder.path() / "user"};
  test::FakeModels models;
  FakeRunner runner;
  FakeMessages messages;
  JobFeed feed{messages};
  std::unique_ptr<Prompts> prompts;
  std::unique_ptr<Assets> assets;
  std::unique_ptr<JobsV2> jobs;
  std::optional<JobsV2State> state;
  std::unique_ptr<Router> router;
};

/// code() of an envelope with this status; the sentence must not be empty.
inline std::string code_of(const Response& response, int status) {
  auto error = test::json_of(response, status)["error"];
  CHECK(!error["message"].get<std::string>().empty());
  return error["code"].get<std::string>();
}

inline Json wait_graph(int value = 1) {
  return {{"1", {{"class_type", "Wait"}, {"inputs", {{"value", value}}}}}};
}
inline Json draw_graph(int seed = 1) {
  return {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", seed}}}}}};
}

}  // namespace distorch::server::testing
