#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

namespace distorch::streaming {

/// A thread that does jobs one after the other, with the device state of whoever gave them.
class Worker {
 public:
  Worker();
  /// Waits for the job at work; drops the others.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// The future is ready when the job is done, and throws what the job threw.
  std::shared_future<void> add(std::function<void()> job);
  /// Drops the jobs that have not begun and waits for the one that has.
  void drop();

 private:
  struct Job {
    std::function<void()> run;
    std::promise<void> done;
  };
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool at_work_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace distorch::streaming
