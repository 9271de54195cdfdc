#include "distorch/server/look_ahead.h"

#include <sys/resource.h>
#include <unistd.h>

#include <exception>
#include <utility>

#include "distorch/base/log.h"

namespace distorch::server {

namespace {

/// Prompts that are through within this time are not worth the work.
constexpr std::chrono::milliseconds kMoment(100);

/// The calling thread, and those that it starts, give way to all others.
void give_way() {
  constexpr int kNice = 15;
  if (::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice) != 0)
    log::debug("looking ahead has the priority of everything else");
}

}  // namespace

LookAhead::~LookAhead() { stop(); }

void LookAhead::start() {
  thread_ = std::thread([this] { work(); });
}

void LookAhead::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (next_) next_->token->interrupt();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LookAhead::next(const std::shared_ptr<const Job>& job) {
  {
    std::lock_guard lock(mutex_);
    if (job && next_ && next_->job->id == job->id) return;
    if (next_) next_->token->interrupt();
    next_.reset();
    if (job) next_ = std::make_shared<Entry>(Entry{job, std::make_shared<RunToken>(job->id)});
  }
  changed_.notify_all();
}

void LookAhead::begun(const std::string& prompt_id) {
  std::lock_guard lock(mutex_);
  running_.reset();
  auto before = std::exchange(next_, nullptr);
  if (!before) return;
  before->token->interrupt();
  if (before->job->id == prompt_id && before->done) running_ = std::move(before);
}

void LookAhead::ended() {
  std::lock_guard lock(mutex_);
  running_.reset();
}

Json LookAhead::state() const {
  std::lock_guard lock(mutex_);
  return {{"running", shown(running_)}, {"next", shown(next_)}};
}

Json LookAhead::shown(const std::shared_ptr<Entry>& entry) {
  if (!entry) return nullptr;
  const char* state = !entry->done ? "planning" : entry->problem.is_null() ? "planned" : "failed";
  Json answer = {{"prompt_id", entry->job->id}, {"state", state}};
  if (entry->done && !entry->plan.is_null()) answer["plan"] = entry->plan;
  if (!entry->problem.is_null()) answer["problem"] = entry->problem;
  return answer;
}

void LookAhead::work() {
  give_way();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || (next_ && !next_->looked_at); });
    if (stopping_) return;
    auto entry = next_;
    if (changed_.wait_until(lock, entry->since + kMoment,
                            [&] { return stopping_ || next_ != entry; }))
      continue;
    entry->looked_at = true;
    look_at(*entry, lock);
  }
}

void LookAhead::look_at(Entry& entry, std::unique_lock<std::mutex>& lock) {
  Json plan, problem;
  lock.unlock();
  try {
    RunScope scope(entry.token);
    plan = runner_.look_ahead(*entry.job, entry.token);
  } catch (const std::exception& error) {
    problem = error.what();
  } catch (...) {
    problem = "it failed without a reason";
  }
  if (!problem.is_null() && !entry.token->interrupted())
    log::debug("prompt {} could not be planned ahead: {}", entry.job->id, problem.dump());
  lock.lock();
  entry.plan = std::move(plan);
  entry.problem = std::move(problem);
  entry.done = !entry.token->interrupted();
}

}  // namespace distorch::server
