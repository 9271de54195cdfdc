#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/server/origin.h"
#include "distorch/server/router.h"

namespace distorch::server {

class Sockets;

/// PEM files.
struct KeyPair {
  std::filesystem::path certificate;
  std::filesystem::path key;
};

struct ListenerOptions {
  /// Numbers or names; "localhost" listens on every address that it stands for.
  std::vector<std::string> addresses = {"127.0.0.1"};
  /// 0 takes a free one (Listener::port).
  std::uint16_t port = 8188;
  std::optional<KeyPair> tls;

  /// Threads that run handlers, and those that read and write.
  int handler_threads = 8;
  int network_threads = 2;

  /// In bytes. Uploads ("/upload/...") have a limit of their own; `bodies_bytes` is for all bodies
  /// that are being read or answered at one time. From `memory_body_bytes` on a body is kept on
  /// disk, in `body_folder`: malloc would not give its memory back.
  std::size_t header_bytes = 32u << 10;
  std::size_t body_bytes = 64u << 20;
  std::size_t upload_bytes = 100u << 20;
  std::size_t bodies_bytes = 1u << 30;
  std::size_t memory_body_bytes = 1u << 20;
  /// "" or a folder that cannot be written: the system's temporary one.
  std::filesystem::path body_folder;
  /// Connections at one time, web sockets with them. The limit of open files lowers it.
  std::size_t connections = 4096;

  /// A connection without a request is closed after `idle`. A peer has `patience` to take or give
  /// the next piece, and must not be slower than `least_rate` bytes a second over a whole body.
  std::chrono::milliseconds idle{75'000};
  std::chrono::milliseconds patience{30'000};
  double least_rate = 4096;
  /// How long stop() waits for answers that are being made or sent.
  std::chrono::milliseconds stop_time{10'000};
  /// Compresses answers for peers of this machine too.
  bool compress_loopback = false;
};

/// HTTP/1.1 over TCP or TLS: keep-alive, requests that follow each other without waiting
/// (pipelining), 100-continue, web sockets at "/ws" and "/api/ws". A request that breaks a rule is
/// answered with 400, 413, 431 or 503 and its connection closed; other connections do not notice.
class Listener {
 public:
  /// Listens from here on, answers from start() on. `router` and `gate` must outlive it; `sockets`
  /// may be null, where web sockets get 404. Error(Usage) names an address that cannot be listened
  /// on, or a port that is in use; Error(Format or MissingFile) a key or certificate.
  Listener(ListenerOptions options, const Router& router, const Gate& gate, Sockets* sockets);
  /// Stops.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void start();
  /// Accepts nothing more, lets running answers end (up to stop_time), closes all and returns.
  /// Handlers that still run are waited for. Safe to call twice.
  void stop();

  std::uint16_t port() const;
  /// "http://127.0.0.1:8188", one for each address.
  std::vector<std::string> urls() const;
  /// Connections that are open now.
  std::size_t connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace distorch::server
