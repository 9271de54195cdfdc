#include "distorch/streaming/worker.h"

#include <utility>

#include "distorch/device/thread_state.h"

namespace distorch::streaming {

Worker::Worker() : thread_([this] { loop(); }) {}

Worker::~Worker() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_future<void> Worker::add(std::function<void()> job) {
  auto inheriting = [job = std::move(job), state = device::ThreadState::capture()] {
    device::ThreadState::Scope inherited(state);
    job();
  };
  std::lock_guard lock(mutex_);
  jobs_.push_back({std::move(inheriting), {}});
  changed_.notify_all();
  return jobs_.back().done.get_future().share();
}

void Worker::drop() {
  std::unique_lock lock(mutex_);
  jobs_.clear();
  changed_.wait(lock, [&] { return !at_work_; });
}

void Worker::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    at_work_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      job.run();
    } catch (...) {
      failure = std::current_exception();
    }
    // What it held is free before anybody learns that it is done.
    job.run = nullptr;
    if (failure)
      job.done.set_exception(failure);
    else
      job.done.set_value();
    lock.lock();
    at_work_ = false;
    changed_.notify_all();
  }
}

}  // namespace distorch::streaming
