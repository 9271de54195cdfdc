#include "distorch/server/log_feed.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <chrono>

#include "distorch/base/error.h"

namespace distorch::server {

namespace {

constexpr std::size_t kLineLimit = 8192;    // bytes
constexpr std::size_t kClientLimit = 1000;  // subscribers
/// Lines that come closer together than this share a message.
constexpr auto kPause = std::chrono::milliseconds(50);

std::string time_text(std::chrono::system_clock::time_point time) {
  using namespace std::chrono;
  auto seconds = time_point_cast<std::chrono::seconds>(time);
  auto rest = duration_cast<microseconds>(time - seconds).count();
  std::tm local{};
  auto value = system_clock::to_time_t(seconds);
  ::localtime_r(&value, &local);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}", local, rest);
}

}  // namespace

/// The lines, shared by the feed and its sink.
struct LogFeed::Ring {
  explicit Ring(std::size_t size) : capacity(size) {}

  void add(LogLine line) {
    std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
    if (lines.size() > capacity) lines.pop_front();
    ++added;
    changed.notify_all();
  }

  const std::size_t capacity;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<LogLine> lines;
  std::uint64_t added = 0;  // since the start, with those that were dropped
  bool stop = false;
};

class LogFeed::Sink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit Sink(std::shared_ptr<Ring> ring) : ring_(std::move(ring)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    auto level = spdlog::level::to_string_view(message.level);
    auto text = fmt::format("[{}] {}", std::string_view(level.data(), level.size()),
                            std::string_view(message.payload.data(), message.payload.size()));
    if (text.size() > kLineLimit) {
      text.resize(kLineLimit);
      text += " ...";
    }
    ring_->add({time_text(message.time), text + "\n"});
  }
  void flush_() override {}

  std::shared_ptr<Ring> ring_;
};

LogFeed::LogFeed(Messages& messages, std::size_t capacity)
    : messages_(messages),
      ring_(std::make_shared<Ring>(capacity)),
      sink_(std::make_shared<Sink>(ring_)),
      thread_([this] { send_lines(); }) {}

LogFeed::~LogFeed() {
  {
    std::lock_guard lock(ring_->mutex);
    ring_->stop = true;
    ring_->changed.notify_all();
  }
  thread_.join();
}

std::shared_ptr<spdlog::sinks::sink> LogFeed::sink() const { return sink_; }

std::vector<LogLine> LogFeed::lines() const {
  std::lock_guard lock(ring_->mutex);
  return {ring_->lines.begin(), ring_->lines.end()};
}

void LogFeed::subscribe(const std::string& client) {
  if (client.empty()) throw Error(ErrorKind::Usage, "clientId", "is empty");
  std::lock_guard lock(mutex_);
  std::erase(clients_, client);
  clients_.push_back(client);
  // Those that went without saying so are the oldest.
  if (clients_.size() > kClientLimit) clients_.erase(clients_.begin());
}

void LogFeed::unsubscribe(const std::string& client) {
  std::lock_guard lock(mutex_);
  std::erase(clients_, client);
}

void LogFeed::send_lines() {
  std::uint64_t seen = 0;
  while (true) {
    Json entries = Json::array();
    {
      std::unique_lock lock(ring_->mutex);
      ring_->changed.wait(lock, [&] { return ring_->stop || ring_->added != seen; });
      ring_->changed.wait_for(lock, kPause, [&] { return ring_->stop; });
      if (ring_->stop) return;
      auto fresh = std::min<std::uint64_t>(ring_->added - seen, ring_->lines.size());
      for (auto line = ring_->lines.end() - static_cast<std::ptrdiff_t>(fresh);
           line != ring_->lines.end(); ++line)
        entries.push_back({{"t", line->time}, {"m", line->text}});
      seen = ring_->added;
    }
    std::vector<std::string> clients;
    {
      std::lock_guard lock(mutex_);
      clients = clients_;
    }
    Json data = {{"entries", std::move(entries)}, {"size", nullptr}};
    for (const auto& client : clients) messages_.send(client, "logs", data);
  }
}

}  // namespace distorch::server
