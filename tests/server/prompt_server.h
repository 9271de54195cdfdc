#pragma once
// The routes for prompts over the small nodes of fake_runner.h, without sockets.
#include <unistd.h>

#include <filesystem>

#include "distorch/graph/json_text.h"
#include "distorch/server/history_routes.h"
#include "distorch/server/jobs_routes.h"
#include "distorch/server/prompt_routes.h"
#include "tests/server/fake_runner.h"

namespace distorch::server::testing {

struct Answer {
  int status = 0;
  std::string body;
  Json json() const { return graph::parse_json(body, "answer"); }
};

/// With `folder` "" the database is in a folder that goes with this object.
class PromptServer {
 public:
  explicit PromptServer(std::size_t most_waiting = 100, std::filesystem::path folder = {})
      : folder_(std::move(folder)) {
    if (folder_.empty()) {
      std::string name =
          (std::filesystem::temp_directory_path() / "distorch_prompts_XXXXXX").string();
      if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
      folder_ = own_ = name;
    }
    prompts = std::make_unique<Prompts>(
        runner, messages,
        PromptOptions{.store = {.file = folder_ / "jobs.sqlite"}, .most_waiting = most_waiting});
    add_prompt_routes(router, *prompts);
    add_history_routes(router, *prompts);
    add_jobs_routes(router, *prompts);
  }
  ~PromptServer() {
    prompts.reset();
    if (!own_.empty()) std::filesystem::remove_all(own_);
  }

  Answer send(Method method, const std::string& path, const std::string& body = "") {
    Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    auto response = router.handle(request);
    return {response.status, response.body};
  }
  Answer get(const std::string& path) { return send(Method::Get, path); }
  Answer post(const std::string& path, const Json& body) {
    return send(Method::Post, path, body.dump());
  }
  /// The answer to a prompt of one node that ends when the gate opens.
  Answer queue_wait(const std::string& id, Json more = Json::object()) {
    more["prompt"] = {{"1", {{"class_type", "Wait"}, {"inputs", {{"value", next_++}}}}}};
    more["prompt_id"] = id;
    return post("/prompt", more);
  }
  bool idle() {
    return eventually([&] { return prompts->queue.remaining() == 0; });
  }
  std::vector<std::string> waiting_ids() {
    std::vector<std::string> ids;
    for (const auto& job : prompts->queue.snapshot().waiting) ids.push_back(job->id);
    return ids;
  }

  FakeRunner runner;
  FakeMessages messages;
  Router router;
  std::unique_ptr<Prompts> prompts;

 private:
  std::filesystem::path folder_, own_;
  int next_ = 0;
};

inline Json draw_prompt(int seed = 1) {
  return {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", seed}}}}}};
}

}  // namespace distorch::server::testing
