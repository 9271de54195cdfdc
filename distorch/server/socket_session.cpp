#include "distorch/server/socket_session.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>

#include "distorch/base/log.h"
#include "distorch/server/address.h"
#include "distorch/server/sockets.h"

namespace distorch::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using Code = beast::error_code;

constexpr std::size_t kLongestId = 256;
// How long a peer may take to close its side after a goodbye.
constexpr std::chrono::seconds kGoodbye{3};
constexpr std::size_t kLargestMessage = 1u << 20;

std::string client_of(const Request& request) {
  const std::size_t mark = request.path.find('?');
  if (mark != std::string::npos)
    for (auto& [name, value] : parse_query(std::string_view(request.path).substr(mark + 1)))
      if (name == "clientId" && !value.empty() && value.size() <= kLongestId) return value;
  return Sockets::new_client();
}

template <class Stream>
class SocketSession final : public Session,
                            public SocketLink,
                            public std::enable_shared_from_this<SocketSession<Stream>> {
 public:
  SocketSession(Stream stream, Shared& shared, std::string client)
      : socket_(std::move(stream)),
        shared_(shared),
        hub_(*shared.sockets),
        client_(std::move(client)),
        calls_(shared.handlers.get_executor()),
        goodbye_(socket_.get_executor()) {
    websocket::stream_base::timeout timeout =
        websocket::stream_base::timeout::suggested(beast::role_type::server);
    timeout.handshake_timeout =
        std::min<std::chrono::milliseconds>(kGoodbye, shared.options.patience);
    timeout.idle_timeout = 2 * shared.options.patience;
    timeout.keep_alive_pings = true;
    socket_.set_option(timeout);
    socket_.read_message_max(kLargestMessage);
  }
  ~SocketSession() override { shared_.sessions.remove(this); }

  template <class Upgrade>
  void begin(Upgrade upgrade) {
    auto request = std::make_shared<Upgrade>(std::move(upgrade));
    socket_.async_accept(*request, [self = self(), request](Code error) {
      if (error) return;
      self->is_open_ = true;
      self->watch_goodbyes();
      self->call([self] { self->hub_.opened(self->client_, self); });
      self->read();
    });
  }

  void push(const Frame& frame) override {
    bool idle = false;
    {
      std::lock_guard lock(mutex_);
      if (given_up_) return;
      given_up_ = !outbox_.push(frame);
      idle = !std::exchange(writing_, true);
    }
    if (given_up_) {
      log::warn("client {} reads too slowly and is disconnected", client_);
      return close();
    }
    if (idle) post([self = self()] { self->write_next(); });
  }

  void finish() override {
    post([self = self()] {
      if (!self->is_open_) return self->close_now();
      self->end_soon();
      self->socket_.async_close(websocket::close_code::going_away,
                                [self](Code) { self->close_now(); });
    });
  }
  void close() override {
    post([self = self()] { self->close_now(); });
  }

 private:
  std::shared_ptr<SocketSession> self() { return this->shared_from_this(); }

  template <class Work>
  void post(Work work) {
    asio::post(socket_.get_executor(), std::move(work));
  }
  // The hub's listener is called on a thread of the handlers, in the order of events.
  template <class Work>
  void call(Work work) {
    asio::post(calls_, std::move(work));
  }

  // The peer's own goodbye: it closes its side next, or is closed.
  void watch_goodbyes() {
    socket_.control_callback([this](websocket::frame_type kind, beast::string_view) {
      if (kind == websocket::frame_type::close) end_soon();
    });
  }

  void end_soon() {
    goodbye_.expires_after(kGoodbye);
    goodbye_.async_wait([weak = this->weak_from_this()](Code error) {
      auto session = weak.lock();
      if (session && !error) session->close_now();
    });
  }

  void close_now() { beast::get_lowest_layer(socket_).close(); }

  void read() {
    socket_.async_read(buffer_, [self = self()](Code error, std::size_t) {
      if (error) return self->on_end();
      if (self->socket_.got_text()) {
        std::string text = beast::buffers_to_string(self->buffer_.data());
        self->call([self, text = std::move(text)] {
          self->hub_.received(self->client_, self.get(), text);
        });
      }
      self->buffer_.consume(self->buffer_.size());
      self->read();
    });
  }

  void on_end() {
    is_open_ = false;
    close_now();
    {
      std::lock_guard lock(mutex_);
      given_up_ = true;
    }
    call([self = self()] { self->hub_.closed(self->client_, self.get()); });
  }

  void write_next() {
    {
      std::lock_guard lock(mutex_);
      auto next = given_up_ ? std::nullopt : outbox_.pop();
      writing_ = next.has_value();
      if (!next) return;
      sent_ = std::move(*next);
    }
    socket_.text(sent_.is_text);
    socket_.async_write(asio::buffer(*sent_.bytes), [self = self()](Code error, std::size_t) {
      // A broken connection also ends the read, which tells the hub.
      if (error) return self->close_now();
      self->write_next();
    });
  }

  websocket::stream<Stream> socket_;
  Shared& shared_;
  Sockets& hub_;
  const std::string client_;
  asio::strand<asio::thread_pool::executor_type> calls_;
  asio::steady_timer goodbye_;
  beast::flat_buffer buffer_;
  bool is_open_ = false;

  std::mutex mutex_;
  Outbox outbox_;
  bool writing_ = false;
  std::atomic<bool> given_up_{false};
  // What is being written.
  Frame sent_;
};

}  // namespace

template <class Stream>
void open_socket(Stream stream,
                 boost::beast::http::request<boost::beast::http::string_body> upgrade,
                 const Request& request, Shared& shared) {
  auto session =
      std::make_shared<SocketSession<Stream>>(std::move(stream), shared, client_of(request));
  // Without room it is dropped here, which closes it.
  if (shared.sessions.add(session)) session->begin(std::move(upgrade));
}

template void open_socket(beast::tcp_stream, beast::http::request<beast::http::string_body>,
                          const Request&, Shared&);
template void open_socket(beast::ssl_stream<beast::tcp_stream>,
                          beast::http::request<beast::http::string_body>, const Request&, Shared&);

}  // namespace distorch::server
