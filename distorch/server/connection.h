#pragma once
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>

#include "distorch/server/listener.h"
#include "distorch/server/sessions.h"

namespace distorch::server {

/// What all connections of a listener share; outlives them.
struct Shared {
  ListenerOptions options;
  const Router& router;
  const Gate& gate;
  Sockets* sockets;
  boost::asio::thread_pool& handlers;
  /// Null without TLS.
  boost::asio::ssl::context* tls;
  Sessions sessions;
  std::atomic<bool> stopping{false};
  /// Bytes of bodies that are held now.
  std::atomic<std::size_t> body_bytes{0};
  /// Memory is about to be given back to the system.
  std::atomic<bool> trimming{false};
};

/// Takes an accepted socket, whose executor is a strand, into a connection that lives until it is
/// closed. Where there are too many it is answered with 503 and closed.
void open_connection(boost::asio::ip::tcp::socket socket, Shared& shared);

}  // namespace distorch::server
