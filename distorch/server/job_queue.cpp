#include "distorch/server/job_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/base/log.h"

namespace distorch::server {

JobQueue::JobQueue(Store& store, std::size_t most_waiting)
    : store_(store), most_waiting_(most_waiting) {
  for (auto& job : store_.restore()) {
    if (job.number.is_number_integer())
      counter_ = std::max(counter_, std::abs(job.number.get<std::int64_t>()) + 1);
    auto place = place_of(job);
    numbers_[job.id] = place.first;
    waiting_[place] = std::make_shared<Job>(std::move(job));
  }
  if (!waiting_.empty())
    log::info("{} prompt{} of the last process wait{} in the queue", waiting_.size(),
              waiting_.size() == 1 ? "" : "s", waiting_.size() == 1 ? "s" : "");
}

JobQueue::Place JobQueue::place_of(const Job& job) { return {job.number.get<double>(), job.id}; }

std::map<JobQueue::Place, std::shared_ptr<Job>>::iterator JobQueue::find(const std::string& id) {
  auto number = numbers_.find(id);
  return number == numbers_.end() ? waiting_.end() : waiting_.find({number->second, id});
}

bool JobQueue::is_there(const std::string& id) const {
  return numbers_.count(id) != 0 || (running_.job && running_.job->id == id);
}

void JobQueue::changed() {
  if (!listener_) return;
  std::lock_guard telling(telling_);
  listener_(remaining());
}

std::int64_t JobQueue::next_number(bool front) {
  std::lock_guard lock(mutex_);
  auto number = counter_++;
  return front ? -number : number;
}

void JobQueue::put(Job job) {
  {
    std::lock_guard lock(mutex_);
    if (is_there(job.id))
      throw Error(ErrorKind::Usage, "prompt_id",
                  fmt::format("{} is the id of a prompt that waits or runs", job.id));
    if (waiting_.size() >= most_waiting_)
      throw Error(ErrorKind::Usage, "queue",
                  fmt::format("{} prompts wait already, no more are taken", waiting_.size()));
    store_.accept(job);
    auto place = place_of(job);
    numbers_[job.id] = place.first;
    waiting_[place] = std::make_shared<Job>(std::move(job));
  }
  // Clients hear of it before a worker that waits begins with it.
  changed();
  work_.notify_all();
}

std::optional<JobQueue::Taken> JobQueue::take() {
  Taken taken;
  {
    std::unique_lock lock(mutex_);
    work_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
    if (closed_) return {};
    auto first = waiting_.begin();
    taken = {first->second, std::make_shared<RunToken>(first->second->id)};
    store_.begin(*taken.job);
    numbers_.erase(taken.job->id);
    waiting_.erase(first);
    running_ = taken;
  }
  changed();
  return taken;
}

void JobQueue::finish(const Outcome& outcome) {
  {
    std::lock_guard lock(mutex_);
    store_.finish(*running_.job, outcome);
    running_ = {};
  }
  changed();
}

void JobQueue::put_back() {
  {
    std::lock_guard lock(mutex_);
    store_.put_back(*running_.job);
    auto place = place_of(*running_.job);
    numbers_[running_.job->id] = place.first;
    waiting_[place] = running_.job;
    running_ = {};
  }
  changed();
}

bool JobQueue::interrupt(const std::optional<std::string>& id) {
  std::lock_guard lock(mutex_);
  if (!running_.job || (id && running_.job->id != *id)) return false;
  running_.token->interrupt();
  return true;
}

bool JobQueue::remove(const std::string& id) {
  {
    std::lock_guard lock(mutex_);
    auto found = find(id);
    if (found == waiting_.end()) return false;
    store_.remove({id});
    waiting_.erase(found);
    numbers_.erase(id);
  }
  changed();
  return true;
}

void JobQueue::clear() {
  {
    std::lock_guard lock(mutex_);
    std::vector<std::string> ids;
    for (const auto& [place, job] : waiting_) ids.push_back(job->id);
    store_.remove(ids);
    waiting_.clear();
    numbers_.clear();
  }
  changed();
}

bool JobQueue::cancel(const std::string& id) { return remove(id) || interrupt(id); }

JobQueue::Snapshot JobQueue::snapshot() const {
  std::lock_guard lock(mutex_);
  Snapshot snapshot{running_.job, {}};
  for (const auto& [place, job] : waiting_) snapshot.waiting.push_back(job);
  return snapshot;
}

std::size_t JobQueue::remaining() const {
  std::lock_guard lock(mutex_);
  return count();
}

std::shared_ptr<const Job> JobQueue::next() const {
  std::lock_guard lock(mutex_);
  return waiting_.empty() ? nullptr : waiting_.begin()->second;
}

void JobQueue::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (running_.token) running_.token->interrupt();
  }
  work_.notify_all();
}

bool JobQueue::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void JobQueue::wait_for_work() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [&] { return closed_ || woken_ || !waiting_.empty(); });
  woken_ = false;
}

void JobQueue::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  work_.notify_all();
}

}  // namespace distorch::server
