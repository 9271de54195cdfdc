#pragma once
#include <string>

#include "distorch/server/http.h"

namespace distorch::server {

/// The way to the web sockets of clients. Safe to call from any thread; never waits for a client: a
/// client that reads too slowly loses previews first and its connection in the end.
class Messages {
 public:
  virtual ~Messages() = default;
  /// {"type": type, "data": data} to the client of this id, or to all where it is "".
  virtual void send(const std::string& client, const std::string& type, const Json& data) = 0;
  /// A binary frame: `event` as 4 bytes big-endian, then the payload. Of several previews
  /// (JPEG) that wait for one client only the newest is kept.
  virtual void send_binary(const std::string& client, std::uint32_t event,
                           const std::string& payload) = 0;
  /// What the client said that it understands (feature_flags); an empty object where it said
  /// nothing.
  virtual Json features_of(const std::string& client) const = 0;
};

/// Told about sockets, on a thread of the listener.
class SocketListener {
 public:
  virtual ~SocketListener() = default;
  /// A socket is open as `client`: what the server sends first (the status) goes through Messages.
  virtual void on_open(const std::string& client) = 0;
  virtual void on_text(const std::string& client, const std::string& text) = 0;
  virtual void on_close(const std::string& client) = 0;
};

}  // namespace distorch::server
