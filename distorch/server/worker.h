#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "distorch/server/job_queue.h"
#include "distorch/server/look_ahead.h"
#include "distorch/server/messages.h"
#include "distorch/server/metrics.h"
#include "distorch/server/prompt_runner.h"
#include "distorch/server/run_messages.h"

namespace distorch::server {

/// Runs the prompts of a queue one after the other on a thread of its own, and tells the clients.
/// While one runs, the runner looks ahead to the next.
class Worker {
 public:
  Worker(JobQueue& queue, PromptRunner& runner, Messages& messages, Metrics& metrics,
         PreviewRules previews = {});
  /// stop().
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();
  /// Stops the running prompt, which waits again, and ends the threads.
  void stop();
  /// Gives back memory as soon as no prompt runs.
  void release(bool models, bool results);
  /// The node that a running prompt of this client is at.
  std::optional<std::string> running_node(const std::string& client) const;
  /// To be called after each change of the queue.
  void queue_changed();
  /// What is known beforehand of the prompt that runs and of the next (look_ahead.h).
  Json predictions() const { return ahead_.state(); }
  /// False once the thread has ended.
  bool alive() const { return alive_; }

 private:
  void work();
  void run(const JobQueue::Taken& taken);
  Outcome outcome_of(const Job& job, const JobQueue::Taken& taken, graph::EventSink& sink);
  std::string no_longer_valid(const Job& job);
  Outcome refused(const Job& job, const std::string& type, const std::string& sentence);
  void release_if_asked();

  JobQueue& queue_;
  PromptRunner& runner_;
  Messages& messages_;
  Metrics& metrics_;
  PreviewRules previews_;
  std::atomic<bool> alive_{false};
  std::atomic<bool> release_models_{false}, release_results_{false};
  mutable std::mutex mutex_;
  std::shared_ptr<RunMessages> reporter_;  // of the running prompt
  LookAhead ahead_;
  std::thread thread_;
};

}  // namespace distorch::server
