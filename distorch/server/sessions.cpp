#include "distorch/server/sessions.h"

#include <vector>

namespace distorch::server {
namespace {

// What it gives must be dropped without the lock: a session that ends takes itself out.
template <class Map>
std::vector<std::shared_ptr<Session>> alive(const Map& map) {
  std::vector<std::shared_ptr<Session>> result;
  for (const auto& [key, weak] : map)
    if (auto session = weak.lock()) result.push_back(std::move(session));
  return result;
}

std::shared_ptr<Session> most_idle(const std::vector<std::shared_ptr<Session>>& sessions) {
  std::shared_ptr<Session> result;
  std::int64_t since = 0;
  for (const auto& session : sessions) {
    const std::int64_t idle = session->idle_since();
    if (idle == 0 || (result && idle >= since)) continue;
    result = session;
    since = idle;
  }
  return result;
}

}  // namespace

bool Sessions::add(const std::shared_ptr<Session>& session) {
  // Destroyed after the lock is gone: a session that ends takes itself out.
  std::vector<std::shared_ptr<Session>> others;
  std::shared_ptr<Session> victim;
  {
    std::lock_guard lock(mutex_);
    if (all_.size() >= limit_) {
      others = alive(all_);
      victim = most_idle(others);
      if (!victim) return false;
      all_.erase(victim.get());
    }
    all_.emplace(session.get(), session);
  }
  if (victim) victim->close();
  return true;
}

void Sessions::remove(const Session* session) {
  std::lock_guard lock(mutex_);
  all_.erase(session);
  changed_.notify_all();
}

void Sessions::finish_all() {
  std::vector<std::shared_ptr<Session>> all;
  {
    std::lock_guard lock(mutex_);
    all = alive(all_);
  }
  for (const auto& session : all) session->finish();
}

void Sessions::close_all() {
  std::vector<std::shared_ptr<Session>> all;
  {
    std::lock_guard lock(mutex_);
    all = alive(all_);
  }
  for (const auto& session : all) session->close();
}

bool Sessions::wait_until_empty(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return all_.empty(); });
}

std::size_t Sessions::count() const {
  std::lock_guard lock(mutex_);
  return all_.size();
}

}  // namespace distorch::server
