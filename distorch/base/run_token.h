#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <string>

namespace distorch {

/// One run of a prompt, as everything that works for it sees it: its name, and whether it is to
/// stop. It is made by whoever starts the run and belongs to that run alone: what stops one run
/// says nothing about the next.
class RunToken {
 public:
  using Clock = std::chrono::steady_clock;

  explicit RunToken(std::string prompt_id = "") : prompt_id_(std::move(prompt_id)) {}
  RunToken(const RunToken&) = delete;
  RunToken& operator=(const RunToken&) = delete;

  const std::string& prompt_id() const { return prompt_id_; }
  /// Asks the run to stop at its next good moment. For any thread and for signal handlers.
  void interrupt() noexcept { interrupted_.store(true, std::memory_order_relaxed); }
  bool interrupted() const noexcept { return interrupted_.load(std::memory_order_relaxed); }
  /// The run also stops once this moment has passed.
  void set_deadline(Clock::time_point when) noexcept;
  /// Said by whoever ran it: nothing of it happens any more, though somebody may still hold it.
  void end() noexcept { ended_.store(true, std::memory_order_relaxed); }
  bool ended() const noexcept { return ended_.load(std::memory_order_relaxed); }
  /// Throws Error(Interrupted) where the run is to stop.
  void throw_if_stopped() const;

 private:
  std::string prompt_id_;
  std::atomic<bool> interrupted_{false}, ended_{false};
  std::atomic<Clock::rep> deadline_{Clock::duration::max().count()};
  static_assert(std::atomic<bool>::is_always_lock_free, "signal handlers write the flag");
};

/// While it lives, the thread that made it works for `token`'s run. Scopes nest. A thread that is
/// started for a run makes one of current_run() of the thread that starts it.
class RunScope {
 public:
  explicit RunScope(std::shared_ptr<RunToken> token);
  ~RunScope();
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;

 private:
  std::shared_ptr<RunToken> before_;
};

/// The run that the calling thread works for; null where there is none.
std::shared_ptr<RunToken> current_run();

/// Long work asks this between its pieces: throws Error(Interrupted) where the calling thread's run
/// is to stop. Without a run it does nothing.
void throw_if_interrupted();

}  // namespace distorch
