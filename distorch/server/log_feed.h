#pragma once
#include <spdlog/sinks/sink.h>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distorch/server/messages.h"

namespace distorch::server {

struct LogLine {
  std::string time;  // local, "2026-11-26T18:17:35.770024"
  std::string text;  // with its line break
};

/// The newest lines of the process's log, for clients that ask and for those that subscribed. Lines
/// are sent by a thread of this object, so that whoever logs never waits for a client.
class LogFeed {
 public:
  explicit LogFeed(Messages& messages, std::size_t capacity = 1000);
  ~LogFeed();
  LogFeed(const LogFeed&) = delete;
  LogFeed& operator=(const LogFeed&) = delete;

  /// Takes the lines: spdlog::default_logger()->sinks().push_back(feed.sink()). May outlive the
  /// feed.
  std::shared_ptr<spdlog::sinks::sink> sink() const;
  /// Oldest first.
  std::vector<LogLine> lines() const;
  /// From now on new lines go to this client as messages "logs". Of very many the newest thousand
  /// are kept. Error(Usage) for an empty id.
  void subscribe(const std::string& client);
  /// Also to be called when a client's socket closed.
  void unsubscribe(const std::string& client);

 private:
  struct Ring;
  class Sink;
  void send_lines();

  Messages& messages_;
  std::shared_ptr<Ring> ring_;
  std::shared_ptr<Sink> sink_;
  std::mutex mutex_;
  std::vector<std::string> clients_;  // the newest last
  std::thread thread_;
};

}  // namespace distorch::server
