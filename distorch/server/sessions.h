#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace distorch::server {

/// One accepted connection, HTTP or web socket. All functions may be called from any thread.
class Session {
 public:
  virtual ~Session() = default;
  /// Ends after the answer that is being made or sent; at once where there is none.
  virtual void finish() = 0;
  /// Ends now.
  virtual void close() = 0;
  /// Since when it waits for a request, in milliseconds of the steady clock; 0 while it has one.
  virtual std::int64_t idle_since() const { return 0; }
};

/// All sessions of a listener, as many as it allows.
class Sessions {
 public:
  explicit Sessions(std::size_t limit) : limit_(limit) {}

  /// Where there are as many as allowed, the one that has been idle longest is closed and makes
  /// room; false where none is idle.
  bool add(const std::shared_ptr<Session>& session);
  void remove(const Session* session);
  void finish_all();
  void close_all();
  /// Whether all are gone within this time.
  bool wait_until_empty(std::chrono::milliseconds time);
  std::size_t count() const;

 private:
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<const Session*, std::weak_ptr<Session>> all_;
};

}  // namespace distorch::server
