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
/// Of a prompt that runs, nobody asks how long it will take before that.
constexpr std::chrono::milliseconds kLong(1000);

/// The calling thread, and those that it starts, give way to all others.
void give_way() {
  constexpr int kNice = 10;
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
    drop(next_);
    drop(running_);
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<LookAhead::Entry> LookAhead::entry_of(const std::shared_ptr<const Job>& job) {
  return std::make_shared<Entry>(Entry{job, std::make_shared<RunToken>(job->id)});
}

/// Nothing is known there any more; what is being found out stops.
void LookAhead::drop(std::shared_ptr<Entry>& entry) {
  if (entry && !entry->done) entry->token->interrupt();
  entry.reset();
}

void LookAhead::next(const std::shared_ptr<const Job>& job) {
  {
    std::lock_guard lock(mutex_);
    if (job && next_ && next_->job->id == job->id) return;
    drop(next_);
    if (job) next_ = entry_of(job);
  }
  changed_.notify_all();
}

void LookAhead::begun(const std::shared_ptr<const Job>& job) {
  {
    std::lock_guard lock(mutex_);
    drop(running_);
    if (next_ && next_->done && next_->job->id == job->id) running_ = std::move(next_);
    drop(next_);
    if (!running_) running_ = entry_of(job);
  }
  changed_.notify_all();
}

void LookAhead::ended() {
  std::lock_guard lock(mutex_);
  drop(running_);
}

Json LookAhead::state() const {
  std::lock_guard lock(mutex_);
  bool known = running_ && running_->looked_at;
  return {{"running", known ? shown(running_) : Json()}, {"next", shown(next_)}};
}

Json LookAhead::shown(const std::shared_ptr<Entry>& entry) {
  if (!entry) return nullptr;
  const char* state = !entry->done ? "planning" : entry->problem.is_null() ? "planned" : "failed";
  Json answer = {{"prompt_id", entry->job->id}, {"state", state}};
  if (entry->done && !entry->plan.is_null()) answer["plan"] = entry->plan;
  if (!entry->problem.is_null()) answer["problem"] = entry->problem;
  return answer;
}

std::chrono::steady_clock::time_point LookAhead::due_time(const Entry& entry) const {
  return entry.since + (&entry == running_.get() ? kLong : kMoment);
}

/// What is to be looked at first of what nobody has looked at; null: nothing.
std::shared_ptr<LookAhead::Entry> LookAhead::due() const {
  std::shared_ptr<Entry> first;
  for (const auto& entry : {next_, running_})
    if (entry && !entry->looked_at && (!first || due_time(*entry) < due_time(*first)))
      first = entry;
  return first;
}

void LookAhead::work() {
  give_way();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || due(); });
    if (stopping_) return;
    auto entry = due();
    if (changed_.wait_until(lock, due_time(*entry), [&] { return stopping_ || due() != entry; }))
      continue;
    entry->looked_at = true;
    look_at(*entry, lock);
  }
}

void LookAhead::look_at(Entry& entry, std::unique_lock<std::mutex>& lock) {
  Json plan, problem;
  const bool runs = &entry == running_.get();
  lock.unlock();
  try {
    RunScope scope(entry.token);
    plan = runs ? runner_.predict(*entry.job, entry.token)
                : runner_.look_ahead(*entry.job, entry.token);
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
