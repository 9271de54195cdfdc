#pragma once
#include <condition_variable>
#include <mutex>
#include <vector>

#include "distorch/server/messages.h"

namespace distorch::test {

/// Keeps what would have gone to sockets.
class FakeMessages : public server::Messages {
 public:
  struct Sent {
    std::string client, type;
    server::Json data;
  };
  void send(const std::string& client, const std::string& type, const server::Json& data) override {
    std::lock_guard lock(mutex_);
    sent_.push_back({client, type, data});
    changed_.notify_all();
  }
  void send_binary(const std::string&, std::uint32_t, const std::string&) override {}
  server::Json features_of(const std::string&) const override { return server::Json::object(); }

  std::vector<Sent> sent() const {
    std::lock_guard lock(mutex_);
    return sent_;
  }
  /// Waits until `enough` says so; false after ten seconds.
  template <class Enough>
  bool wait(const Enough& enough) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return enough(sent_); });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Sent> sent_;
};

}  // namespace distorch::test
