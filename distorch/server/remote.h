#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "distorch/graph/value.h"

namespace distorch::server {

using graph::Json;

/// A server as its client sees it: requests one at a time, and a web socket. For one thread.
/// Errors have the address as where(): Usage for one that is none, Format where nobody answers there
/// or the connection broke.
class Remote {
 public:
  /// "http://host:8188" or "https://host"; a path in front of the routes is kept. `token` "" where
  /// the server wants none.
  Remote(const std::string& url, std::string token);
  ~Remote();
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  struct Answer {
    int status = 0;
    std::string body;
  };
  Answer get(const std::string& target);
  Answer post(const std::string& target, const Json& body);

  /// Opens the web socket as this client.
  void listen(const std::string& client);
  /// The next text message {"type", "data"}; nothing where none came in time.
  std::optional<Json> next(std::chrono::milliseconds wait);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The parts of an address of a server.
struct ServerAddress {
  bool tls = false;
  std::string host, port, prefix;
};
/// Error(Usage) where it is none.
ServerAddress parse_server_address(const std::string& url);

}  // namespace distorch::server
