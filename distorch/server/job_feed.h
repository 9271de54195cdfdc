#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "distorch/server/job.h"
#include "distorch/server/messages.h"

namespace distorch::server {

/// Stands between the worker and the sockets: passes everything on, and knows from it where the
/// running prompt is, for who asks about one job instead of listening to a socket. Safe to call from
/// any thread.
class JobFeed final : public Messages {
 public:
  /// `clients` must outlive it.
  explicit JobFeed(Messages& clients) : clients_(clients) {}

  void send(const std::string& client, const std::string& type, const Json& data) override;
  void send_binary(const std::string& client, std::uint32_t event,
                   const std::string& payload) override;
  /// Of a job that is watched here: that previews are wanted with their node.
  Json features_of(const std::string& client) const override;

  /// What the running prompt has told.
  struct Live {
    std::string job;
    std::int64_t started_ms = 0;
    Json nodes = Json::object();      // as the last progress_state has them
    std::string running;              // the node that runs; "" between nodes
    std::vector<std::string> cached;  // nodes answered from the cache
    Json outputs = Json::object();    // of the nodes that have ended, as /history has them
  };
  /// Nothing where this job is not running.
  std::optional<Live> live(const std::string& job) const;

  struct Picture {
    std::string node, content_type, bytes;
  };
  /// One who wants to know of one job, for as long as this object lives. The feed must outlive it.
  class Watch {
   public:
    Watch(JobFeed& feed, std::string job);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    /// Called, on any thread and without a lock of the feed, when something about the job changed.
    void wake_with(std::function<void()> wake);
    /// The newest preview that came since the last call.
    std::optional<Picture> take_picture();

   private:
    friend class JobFeed;
    JobFeed& feed_;
    const std::string job_;
    std::shared_ptr<std::function<void()>> wake_;
    std::optional<Picture> picture_;
  };
  std::size_t watches() const;
  /// Something about a job changed that no message tells of.
  void touch(const std::string& job);

 private:
  void note(const std::string& type, const Json& data);
  void wake(const std::string& job);

  Messages& clients_;
  mutable std::mutex mutex_;
  Live live_;
  std::vector<Watch*> watches_;
};

}  // namespace distorch::server
