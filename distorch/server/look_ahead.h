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
/// has been the next one for a moment. A prompt that begins without this is planned while it runs,
/// if it does so for long. What goes wrong there is kept as an answer and harms nothing.
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
  /// This prompt begins to run: what is known of it goes with it.
  void begun(const std::shared_ptr<const Job>& job);
  void ended();

  /// {"running", "next"}, each null or {"prompt_id", "state", "plan", "problem"}: state is
  /// "planning", "planned" (with the plan) or "failed" (with the problem). A prompt that runs is
  /// told of from when its plan is begun.
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
  static std::shared_ptr<Entry> entry_of(const std::shared_ptr<const Job>& job);
  static void drop(std::shared_ptr<Entry>& entry);
  void work();
  std::shared_ptr<Entry> due() const;
  std::chrono::steady_clock::time_point due_time(const Entry& entry) const;
  void look_at(Entry& entry, std::unique_lock<std::mutex>& lock);

  PromptRunner& runner_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Entry> next_, running_;  // null: nothing is known
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace distorch::server
