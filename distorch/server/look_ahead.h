#pragma once
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "distorch/base/run_token.h"
#include "distorch/server/prompt_runner.h"

namespace distorch::server {

/// While a prompt runs, has the runner look ahead to the one that comes next, on a thread of its
/// own and of low priority: it is checked and planned, and its models' files are read ahead, once it
/// has been the next one for a moment. What goes wrong there is kept as an answer and harms nothing.
/// For any thread.
class LookAhead {
 public:
  explicit LookAhead(PromptRunner& runner) : runner_(runner) {}
  /// stop().
  ~LookAhead();
  LookAhead(const LookAhead&) = delete;
  LookAhead& operator=(const LookAhead&) = delete;

  void start();
  /// Stops what is looked at and ends the thread.
  void stop();
  /// The prompt that comes next by now; null: none does. Where that is another one than before,
  /// what is done for the other stops.
  void next(const std::shared_ptr<const Job>& job);
  /// This prompt begins to run: what is known of it goes with it, what is not known yet is left.
  void begun(const std::string& prompt_id);
  void ended();

  /// {"running", "next"}, each null or {"prompt_id", "state", "plan", "problem"}: state is
  /// "planning", "planned" (with the plan) or "failed" (with the problem).
  Json state() const;

 private:
  struct Entry {
    std::shared_ptr<const Job> job;
    std::shared_ptr<RunToken> token;
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
    bool looked_at = false, done = false;
    Json plan, problem;
  };
  static Json shown(const std::shared_ptr<Entry>& entry);
  void work();
  void look_at(Entry& entry, std::unique_lock<std::mutex>& lock);

  PromptRunner& runner_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Entry> next_, running_;  // null: nothing is known
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace distorch::server
