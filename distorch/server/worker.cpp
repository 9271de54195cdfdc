#include "distorch/server/worker.h"

#include <fmt/format.h>

#include <chrono>

#include "distorch/base/error.h"
#include "distorch/base/log.h"

namespace distorch::server {

namespace {

Outcome outcome_of(graph::RunResult result) {
  Outcome outcome;
  outcome.state = result.status == graph::RunStatus::Success ? JobState::Completed
                  : result.status == graph::RunStatus::Error ? JobState::Failed
                                                             : JobState::Cancelled;
  outcome.outputs = std::move(result.outputs);
  outcome.meta = std::move(result.meta);
  for (auto& [type, data] : result.messages)
    outcome.messages.push_back(Json::array({type, std::move(data)}));
  return outcome;
}

/// The server's rules, and previews for every client where the prompt asks for them.
PreviewRules previews_of(const Job& job, PreviewRules rules) {
  auto asked = job.extra_data.find("preview_method");
  rules.to_all |= asked != job.extra_data.end() && asked->is_string() && *asked != "default";
  return rules;
}

void log_end(const Job& job, const Outcome& outcome) {
  auto started = outcome.started_ms(), ended = outcome.ended_ms();
  constexpr double kMillisecond = 1e-3;
  auto seconds = started && ended ? static_cast<double>(*ended - *started) * kMillisecond : 0;
  log::info("prompt {} {} after {:.2f} s", job.id, name_of(outcome.state), seconds);
}

}  // namespace

Worker::Worker(JobQueue& queue, PromptRunner& runner, Messages& messages, Metrics& metrics,
               PreviewRules previews)
    : queue_(queue),
      runner_(runner),
      messages_(messages),
      metrics_(metrics),
      previews_(previews),
      ahead_(runner) {}

Worker::~Worker() { stop(); }

void Worker::start() {
  alive_ = true;
  thread_ = std::thread([this] { work(); });
  ahead_.start();
}

void Worker::stop() {
  queue_.close();
  ahead_.stop();
  if (thread_.joinable()) thread_.join();
}

void Worker::release(bool models, bool results) {
  if (models) release_models_ = true;
  if (results) release_results_ = true;
  if (models || results) queue_.wake();
}

std::optional<std::string> Worker::running_node(const std::string& client) const {
  std::lock_guard lock(mutex_);
  if (!reporter_ || client.empty() || reporter_->client() != client) return {};
  return reporter_->current_node();
}

void Worker::work() {
  while (!queue_.closed()) {
    try {
      queue_.wait_for_work();
      release_if_asked();
      if (!queue_.next()) continue;
      if (auto taken = queue_.take()) run(*taken);
    } catch (const std::exception& error) {
      log::error("the queue cannot go on for now: {}", error.what());
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
  }
  alive_ = false;
}

void Worker::release_if_asked() {
  bool results = release_results_.exchange(false);
  bool models = release_models_.exchange(false) || results;
  if (!models) return;
  try {
    runner_.release(models, results);
  } catch (const std::exception& error) {
    log::error("memory could not be given back: {}", error.what());
  }
}

void Worker::run(const JobQueue::Taken& taken) {
  const auto& job = *taken.job;
  ahead_.begun(taken.job);
  auto reporter = std::make_shared<RunMessages>(messages_, metrics_, job.id, job.client(),
                                                previews_of(job, previews_));
  {
    std::lock_guard lock(mutex_);
    reporter_ = reporter;
  }
  queue_changed();
  auto outcome = outcome_of(job, taken, *reporter);
  if (outcome.state == JobState::Cancelled && queue_.closed()) {
    queue_.put_back();
  } else {
    metrics_.ended(outcome);
    log_end(job, outcome);
    queue_.finish(outcome);
  }
  {
    std::lock_guard lock(mutex_);
    reporter_.reset();
  }
  ahead_.ended();
  reporter->send(graph::finished(job.id));
}

Outcome Worker::outcome_of(const Job& job, const JobQueue::Taken& taken, graph::EventSink& sink) {
  try {
    if (auto reason = job.restored ? no_longer_valid(job) : ""; !reason.empty())
      return refused(job, "ValueError", reason);
    return server::outcome_of(runner_.run(job, taken.token, sink));
  } catch (const Error& error) {
    bool memory = error.kind() == ErrorKind::OutOfMemory;
    if (memory) release(true, false);
    return refused(job, memory ? "OOMError" : "RuntimeError", error.what());
  } catch (const std::bad_alloc&) {
    release(true, false);
    return refused(job, "OOMError", "out of memory");
  } catch (const std::exception& error) {
    return refused(job, "RuntimeError", error.what());
  }
}

std::string Worker::no_longer_valid(const Job& job) {
  // Another process found it valid: files and node types may have changed.
  auto prompt = job.prompt;
  auto validation = runner_.validate(prompt, job.outputs);
  if (validation.clean()) return "";
  std::string reason = "The prompt was accepted by an earlier process and cannot run now:";
  for (const auto& line : validation.lines()) reason += "\n" + line;
  return reason;
}

Outcome Worker::refused(const Job& job, const std::string& type, const std::string& sentence) {
  auto outcome = failure(job, type, sentence);
  auto client = job.client();
  messages_.send(client.empty() ? job.id : client, "execution_error", outcome.messages[0][1]);
  return outcome;
}

void Worker::queue_changed() {
  // With the lock: of two changes the later one has the last word.
  std::lock_guard lock(mutex_);
  if (reporter_) ahead_.next(queue_.next());
}

}  // namespace distorch::server
