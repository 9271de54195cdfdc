#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/server/store.h"

namespace distorch::server {

/// The prompts that wait and the one that runs, each kept by the store before a function returns.
/// Smallest number first, then by id. Safe to call from any thread.
class JobQueue {
 public:
  /// `most_waiting`: more are refused.
  explicit JobQueue(Store& store, std::size_t most_waiting = 10000);

  /// Called after each change, with the number of prompts that wait or run: one call after the
  /// other, the last one with what is true in the end. To be set before the first change.
  void on_change(std::function<void(std::size_t)> listener) { listener_ = std::move(listener); }

  /// The next place at the end; in front of all that wait with `front`. Counts also where the
  /// prompt is refused afterwards.
  std::int64_t next_number(bool front);
  /// Error(Usage) where a prompt of this id waits or runs, or too many wait.
  void put(Job job);
  /// Waits for a prompt and makes it the running one; nothing once the queue is closed.
  struct Taken {
    std::shared_ptr<Job> job;
    std::shared_ptr<RunToken> token;
  };
  std::optional<Taken> take();
  /// The running one has ended.
  void finish(const Outcome& outcome);
  /// The running one waits again.
  void put_back();

  /// Stops the running prompt; with an id only if it is that one. True where it was.
  bool interrupt(const std::optional<std::string>& id = {});
  /// Takes a waiting prompt out. True where it was there.
  bool remove(const std::string& id);
  void clear();
  /// A running prompt is stopped, a waiting one taken out. True where it was one of them.
  bool cancel(const std::string& id);

  struct Snapshot {
    std::shared_ptr<const Job> running;  // null where none runs
    std::vector<std::shared_ptr<const Job>> waiting;
  };
  Snapshot snapshot() const;
  std::size_t remaining() const;
  /// The one that comes next; null where none waits.
  std::shared_ptr<const Job> next() const;

  /// Nothing is taken any more and the running prompt is stopped.
  void close();
  bool closed() const;
  /// Waits until something other than a prompt is to be done (wake()), a prompt waits or the queue
  /// is closed.
  void wait_for_work();
  void wake();

 private:
  using Place = std::pair<double, std::string>;
  static Place place_of(const Job& job);
  std::map<Place, std::shared_ptr<Job>>::iterator find(const std::string& id);
  bool is_there(const std::string& id) const;
  std::size_t count() const { return waiting_.size() + (running_.job ? 1 : 0); }
  void changed();

  Store& store_;
  std::size_t most_waiting_;
  std::function<void(std::size_t)> listener_;
  std::mutex telling_;  // held while the listener is called; taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::map<Place, std::shared_ptr<Job>> waiting_;
  std::map<std::string, double> numbers_;  // of those that wait, by id
  Taken running_;
  std::int64_t counter_ = 0;
  bool closed_ = false, woken_ = false;
};

}  // namespace distorch::server
