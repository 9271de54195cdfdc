#include "distorch/server/listener.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <thread>

#include "distorch/base/log.h"
#include "distorch/server/connection.h"
#include "distorch/server/request_head.h"
#include "distorch/server/sockets.h"

namespace distorch::server {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Code = boost::system::error_code;

// Files that the rest of the program may have open beside connections.
constexpr rlim_t kOtherFiles = 512;
// How long nothing is accepted after the system had no room for one more connection.
constexpr std::chrono::milliseconds kPause{100};

// As many open files as the system allows; fewer connections where it allows few.
std::size_t room_for(std::size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return wanted;
  const rlim_t most =
      limit.rlim_cur > 2 * kOtherFiles ? limit.rlim_cur - kOtherFiles : limit.rlim_cur / 2;
  return std::min<std::size_t>(wanted, most);
}

std::unique_ptr<asio::ssl::context> load_keys(const std::optional<KeyPair>& keys) {
  if (!keys) return nullptr;
  for (const auto& file : {keys->certificate, keys->key})
    if (!std::filesystem::exists(file))
      throw Error(ErrorKind::MissingFile, file.string(), "is not there; TLS needs it");
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                       asio::ssl::context::no_tlsv1_1 | asio::ssl::context::single_dh_use);
  Code error;
  context->use_certificate_chain_file(keys->certificate.string(), error);
  if (error)
    throw Error(ErrorKind::Format, keys->certificate.string(),
                "is no certificate in PEM form: " + error.message());
  context->use_private_key_file(keys->key.string(), asio::ssl::context::pem, error);
  if (error)
    throw Error(ErrorKind::Format, keys->key.string(),
                "is no private key in PEM form for this certificate: " + error.message());
  return context;
}

std::vector<Tcp::endpoint> endpoints_of(asio::io_context& network, const std::string& address,
                                        std::uint16_t port) {
  Code error;
  Tcp::resolver resolver(network);
  std::vector<Tcp::endpoint> result;
  for (const auto& entry :
       resolver.resolve(address, std::to_string(port),
                        Tcp::resolver::passive | Tcp::resolver::numeric_service, error))
    if (std::find(result.begin(), result.end(), entry.endpoint()) == result.end())
      result.push_back(entry.endpoint());
  if (error || result.empty())
    throw Error(ErrorKind::Usage, "listen " + address,
                "is no address of this machine: " + error.message());
  return result;
}

[[noreturn]] void refuse(const Tcp::endpoint& where, const Code& error) {
  const std::string place =
      plain_address(where.address()) + " port " + std::to_string(where.port());
  if (error == asio::error::address_in_use)
    throw Error(ErrorKind::Usage, place,
                "is in use by another program; stop it or choose another port");
  if (error == asio::error::access_denied)
    throw Error(ErrorKind::Usage, place, "may not be used; ports below 1024 need privileges");
  throw Error(ErrorKind::Usage, place, "cannot be listened on: " + error.message());
}

Tcp::acceptor listen_on(asio::io_context& network, const Tcp::endpoint& where, Code& error) {
  // A strand: it is closed from another thread than the one that accepts.
  Tcp::acceptor acceptor(asio::make_strand(network));
  acceptor.open(where.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && where.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true), error);
  if (!error) acceptor.bind(where, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  return acceptor;
}

// A name may stand for an address of a kind that this machine does not have (localhost, IPv6).
bool is_no_address_here(const Code& error) {
  return error == asio::error::address_family_not_supported ||
         error == boost::system::errc::address_not_available;
}

std::string url_of(const Tcp::endpoint& where, bool encrypted) {
  const std::string host = where.address().is_v6() ? "[" + where.address().to_string() + "]"
                                                   : where.address().to_string();
  return (encrypted ? "https://" : "http://") + host + ":" + std::to_string(where.port());
}

}  // namespace

struct Listener::State {
  State(ListenerOptions given, const Router& router, const Gate& gate, Sockets* sockets)
      : tls(load_keys(given.tls)),
        shared{.options = given,
               .router = router,
               .gate = gate,
               .sockets = sockets,
               .handlers = handlers,
               .tls = tls.get(),
               .sessions = Sessions(room_for(given.connections))},
        network(std::max(1, given.network_threads)),
        handlers(static_cast<std::size_t>(std::max(1, given.handler_threads))) {}

  void listen() {
    std::uint16_t port = shared.options.port;
    for (const std::string& address : shared.options.addresses) {
      const std::size_t before = acceptors.size();
      const auto endpoints = endpoints_of(network, address, port);
      for (Tcp::endpoint where : endpoints) {
        where.port(port);
        Code error;
        Tcp::acceptor acceptor = listen_on(network, where, error);
        const bool is_last = where.address() == endpoints.back().address();
        if (error && is_no_address_here(error) && (acceptors.size() > before || !is_last)) continue;
        if (error) refuse(where, error);
        acceptors.push_back(std::move(acceptor));
        // The first address picks the port, the others share it.
        port = acceptors.back().local_endpoint().port();
      }
    }
  }

  void run() {
    for (;;) try {
        network.run();
        return;
      } catch (const std::exception& error) {
        log::error("a connection failed: {}", error.what());
      }
  }

  void accept(Tcp::acceptor& acceptor) {
    acceptor.async_accept(asio::make_strand(network),
                          [this, &acceptor](Code error, Tcp::socket socket) {
                            if (shared.stopping || error == asio::error::operation_aborted) return;
                            if (error) return pause_accepting(acceptor, error);
                            auto executor = socket.get_executor();
                            asio::post(executor, [this, socket = std::move(socket)]() mutable {
                              open_connection(std::move(socket), shared);
                            });
                            accept(acceptor);
                          });
  }

  void pause_accepting(Tcp::acceptor& acceptor, const Code& error) {
    log::warn("a connection could not be accepted: {}", error.message());
    auto timer = std::make_shared<asio::steady_timer>(acceptor.get_executor(), kPause);
    timer->async_wait([this, &acceptor, timer](Code) {
      if (!shared.stopping) accept(acceptor);
    });
  }

  void close_acceptors() {
    for (Tcp::acceptor& acceptor : acceptors)
      asio::post(acceptor.get_executor(), [&acceptor] {
        Code ignored;
        acceptor.close(ignored);
      });
  }

  // Connections that are left when the network goes still take themselves out of `shared`.
  std::unique_ptr<asio::ssl::context> tls;
  Shared shared;
  asio::io_context network;
  asio::thread_pool handlers;
  std::vector<Tcp::acceptor> acceptors;
  std::vector<std::string> urls;
  std::uint16_t port = 0;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work;
  std::vector<std::thread> threads;
  bool stopped = false;
};

Listener::Listener(ListenerOptions options, const Router& router, const Gate& gate,
                   Sockets* sockets)
    : state_(std::make_unique<State>(std::move(options), router, gate, sockets)) {
  state_->listen();
  for (const Tcp::acceptor& acceptor : state_->acceptors)
    state_->urls.push_back(url_of(acceptor.local_endpoint(), state_->tls != nullptr));
  state_->port = state_->acceptors.front().local_endpoint().port();
}

Listener::~Listener() { stop(); }

void Listener::start() {
  state_->work.emplace(state_->network.get_executor());
  for (Tcp::acceptor& acceptor : state_->acceptors) state_->accept(acceptor);
  for (int i = 0; i < std::max(1, state_->shared.options.network_threads); ++i)
    state_->threads.emplace_back([this] { state_->run(); });
}

void Listener::stop() {
  if (state_->stopped) return;
  state_->stopped = true;
  state_->shared.stopping = true;
  if (!state_->threads.empty()) {
    state_->close_acceptors();
    Sessions& sessions = state_->shared.sessions;
    sessions.finish_all();
    if (!sessions.wait_until_empty(state_->shared.options.stop_time)) {
      log::warn("{} connections did not end in time and are closed", sessions.count());
      sessions.close_all();
      sessions.wait_until_empty(state_->shared.options.stop_time);
    }
  }
  state_->handlers.join();
  state_->work.reset();
  state_->network.stop();
  for (std::thread& thread : state_->threads) thread.join();
}

std::uint16_t Listener::port() const { return state_->port; }
std::vector<std::string> Listener::urls() const { return state_->urls; }
std::size_t Listener::connections() const { return state_->shared.sessions.count(); }

}  // namespace distorch::server
