#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "distorch/server/messages.h"
#include "distorch/server/outbox.h"

namespace distorch::server {

/// One open web socket, as the hub sees it. Safe to call from any thread; waits for nothing.
class SocketLink {
 public:
  virtual ~SocketLink() = default;
  virtual void push(const Frame& frame) = 0;
};

/// The table of clients and their web sockets. A client that connects again takes the place of its
/// old socket: that one stays open and hears nothing more, as in ComfyUI (two tabs of one id would
/// push each other out for ever if it were closed). A client's feature flags are answered with the
/// server's, each time that it sends them.
///
/// Of previews only the newest waits: event 4, and event 1 with a JPEG. Event 1 with a PNG is a final
/// picture of a node that streams them and is kept like text.
class Sockets final : public Messages {
 public:
  /// `server_flags` is what GET /features gives too. `listener`, which may be null, must outlive the
  /// hub.
  explicit Sockets(Json server_flags, SocketListener* listener = nullptr);

  /// Before the first socket opens.
  void set_listener(SocketListener* listener) { listener_ = listener; }

  void send(const std::string& client, const std::string& type, const Json& data) override;
  void send_binary(const std::string& client, std::uint32_t event,
                   const std::string& payload) override;
  Json features_of(const std::string& client) const override;

  /// Called by the transport, one after the other for one link.
  void opened(const std::string& client, std::shared_ptr<SocketLink> link);
  void received(const std::string& client, const SocketLink* link, const std::string& text);
  void closed(const std::string& client, const SocketLink* link);

  /// Clients with an open socket.
  std::size_t count() const;
  /// 32 hexadecimal digits by chance.
  static std::string new_client();

 private:
  struct Client {
    std::shared_ptr<SocketLink> link;
    Json features = Json::object();
  };
  using Links = std::vector<std::shared_ptr<SocketLink>>;
  /// Of one client, or of all for ""; empty where nobody listens.
  Links links_to(const std::string& client) const;
  bool is_current(const std::string& client, const SocketLink* link) const;

  const Json server_flags_;
  SocketListener* listener_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Client> clients_;
};

}  // namespace distorch::server
