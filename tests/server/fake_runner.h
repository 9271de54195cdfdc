#pragma once
// An engine for the tests of this folder: the small nodes of tests/graph, a node that runs until it
// is let go, and clients that keep what they were sent.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distorch/media/image.h"
#include "distorch/server/messages.h"
#include "distorch/server/prompts.h"
#include "tests/graph/fake_nodes.h"

namespace distorch::server::testing {

/// Lets nodes of type "Wait" end.
struct Gate {
  std::atomic<bool> open{false};
  std::atomic<int> waiting{0};
};

inline void run_wait(graph::Call& call) {
  auto& gate = call.context<Gate>();
  ++gate.waiting;
  while (!gate.open) {
    throw_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  call.ui({{"text", {"waited"}}});
}

inline void run_draw(graph::Call& call) {
  for (int step = 1; step <= 2; ++step) {
    call.preview(graph::Value::of("PREVIEW", media::blank_image(8, 4, 3)));
    call.progress(step, 2);
  }
  call.ui({{"images", {{{"filename", "a_00001_.png"}, {"subfolder", ""}, {"type", "output"}}}}});
}

class FakeRunner final : public PromptRunner {
 public:
  FakeRunner() : catalog(graph::testing::fake_catalog()), executor(catalog) {
    catalog.add({.name = "Wait",
                 .inputs = {graph::integer("value", {.def = 1})},
                 .output_node = true,
                 .run = run_wait});
    catalog.add({.name = "Draw",
                 .inputs = {graph::integer("seed", {.def = 1})},
                 .output_node = true,
                 .run = run_draw});
    context.set(journal);
    context.set(gate);
  }
  graph::Validation validate(Json& prompt,
                             std::optional<std::vector<std::string>> targets) override {
    return graph::validate(prompt, catalog, {.targets = std::move(targets), .context = &context});
  }
  graph::RunResult run(const Job& job, const std::shared_ptr<RunToken>& token,
                       graph::EventSink& sink) override {
    if (broken) throw std::runtime_error("the engine is broken");
    if (full) throw Error(ErrorKind::OutOfMemory, "cuda:0", "has no room for the model");
    graph::RunRequest request;
    request.prompt = job.prompt;
    request.outputs = job.outputs;
    request.prompt_id = job.id;
    request.context = &context;
    request.token = token;
    return executor.run(request, sink);
  }
  void release(bool models, bool results) override {
    models_released += models;
    results_released += results;
    if (results) executor.release();
  }
  Json look_ahead(const Job& job, const std::shared_ptr<RunToken>& token) override {
    {
      std::lock_guard lock(mutex);
      looked_at.push_back(job.prompt);
    }
    return ahead ? ahead(job, *token) : Json();
  }
  Json predict(const Job& job, const std::shared_ptr<RunToken>& token) override {
    return predicted ? predicted(job, *token) : Json();
  }
  std::size_t looks() {
    std::lock_guard lock(mutex);
    return looked_at.size();
  }

  graph::Catalog catalog;
  graph::testing::Journal journal;
  Gate gate;
  graph::Context context;
  graph::Executor executor;
  std::atomic<bool> broken{false}, full{false};
  std::atomic<int> models_released{0}, results_released{0};
  std::mutex mutex;
  std::vector<Json> looked_at;
  /// What looking ahead does; to be set before the worker starts.
  std::function<Json(const Job&, const RunToken&)> ahead;
  /// The same for a prompt that runs.
  std::function<Json(const Job&, const RunToken&)> predicted;
};

/// One message as it was sent: "type" for text, "#event" for a frame.
struct Sent {
  std::string client, type;
  Json data;
  std::string payload;
};

class FakeMessages final : public Messages {
 public:
  void send(const std::string& client, const std::string& type, const Json& data) override {
    std::lock_guard lock(mutex_);
    sent_.push_back({client, type, data, ""});
  }
  void send_binary(const std::string& client, std::uint32_t event,
                   const std::string& payload) override {
    std::lock_guard lock(mutex_);
    sent_.push_back({client, fmt::format("#{}", event), nullptr, payload});
  }
  Json features_of(const std::string&) const override { return features; }

  std::vector<Sent> sent() const {
    std::lock_guard lock(mutex_);
    return sent_;
  }
  /// What one client saw, messages to all included: types, with the count for a status and the node
  /// where there is one.
  std::vector<std::string> seen_by(const std::string& client) const {
    std::vector<std::string> lines;
    for (const auto& message : sent()) {
      if (!message.client.empty() && message.client != client) continue;
      auto line = message.type;
      if (line == "status")
        line += " " + message.data["status"]["exec_info"]["queue_remaining"].dump();
      if (message.data.is_object() && message.data.contains("node"))
        line += " " +
                (message.data["node"].is_null() ? "null" : message.data["node"].get<std::string>());
      lines.push_back(line);
    }
    return lines;
  }
  void clear() {
    std::lock_guard lock(mutex_);
    sent_.clear();
  }

  Json features = Json::object();

 private:
  mutable std::mutex mutex_;
  std::vector<Sent> sent_;
};

/// Waits at most a minute for something that another thread does.
template <class Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 60000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace distorch::server::testing
