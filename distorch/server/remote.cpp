#include "distorch/server/remote.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <functional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;

namespace {

constexpr std::uint64_t kLargestAnswer = std::uint64_t{1} << 31;  // bytes

/// A web socket over whatever carries it.
class Socket {
 public:
  virtual ~Socket() = default;
  virtual void read(beast::flat_buffer& buffer,
                    std::function<void(boost::system::error_code)> done) = 0;
  virtual bool is_text() const = 0;
};

template <class Stream>
class SocketOver final : public Socket {
 public:
  explicit SocketOver(websocket::stream<Stream> stream) : stream_(std::move(stream)) {}
  void read(beast::flat_buffer& buffer,
            std::function<void(boost::system::error_code)> done) override {
    stream_.async_read(buffer, [done](boost::system::error_code code, std::size_t) { done(code); });
  }
  bool is_text() const override { return stream_.got_text(); }

 private:
  websocket::stream<Stream> stream_;
};

using Plain = beast::tcp_stream;
using Secure = beast::ssl_stream<beast::tcp_stream>;

}  // namespace

ServerAddress parse_server_address(const std::string& url) {
  ServerAddress address;
  std::string rest = url;
  auto scheme = url.find("://");
  if (scheme != std::string::npos) {
    auto name = url.substr(0, scheme);
    if (name != "http" && name != "https")
      throw Error(ErrorKind::Usage, url,
                  "is no address of a server: it begins with http:// or https://");
    address.tls = name == "https";
    rest = url.substr(scheme + 3);
  }
  auto slash = std::min(rest.find('/'), rest.size());
  address.prefix = rest.substr(slash);
  while (address.prefix.ends_with('/')) address.prefix.pop_back();
  auto authority = rest.substr(0, slash);
  auto colon = authority.rfind(':');
  auto bracket = authority.rfind(']');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    address.port = authority.substr(colon + 1);
    authority.resize(colon);
  } else {
    address.port = address.tls ? "443" : scheme == std::string::npos ? "8188" : "80";
  }
  if (authority.starts_with('[') && authority.ends_with(']'))
    authority = authority.substr(1, authority.size() - 2);
  address.host = authority;
  bool number =
      !address.port.empty() && address.port.find_first_not_of("0123456789") == std::string::npos;
  if (address.host.empty() || !number)
    throw Error(ErrorKind::Usage, url, "is no address of a server, such as http://127.0.0.1:8188");
  return address;
}

struct Remote::State {
  std::string url, token;
  ServerAddress address;
  asio::io_context context;
  asio::ssl::context tls{asio::ssl::context::tls_client};
  std::unique_ptr<Socket> socket;
  beast::flat_buffer buffer;
  bool reading = false, arrived = false;
  boost::system::error_code broken;

  std::string host_header() const {
    auto host =
        address.host.find(':') == std::string::npos ? address.host : "[" + address.host + "]";
    return host + ":" + address.port;
  }

  [[noreturn]] void fail(const std::exception& error) const {
    throw Error(ErrorKind::Format, url, std::string("does not answer: ") + error.what());
  }

  Plain connect() {
    tcp::resolver resolver(context);
    Plain stream(context);
    auto places = resolver.resolve(address.host, address.port);
    // The synchronous calls of a stream have no time limit of their own.
    asio::connect(stream.socket(), places);
    return stream;
  }

  Secure connect_secure() {
    Secure stream(connect(), tls);
    SSL_set_tlsext_host_name(stream.native_handle(), address.host.c_str());
    stream.set_verify_mode(asio::ssl::verify_peer);
    stream.set_verify_callback(asio::ssl::host_name_verification(address.host));
    stream.handshake(asio::ssl::stream_base::client);
    return stream;
  }

  template <class Stream>
  Answer exchange(Stream stream, const http::request<http::string_body>& request) {
    http::write(stream, request);
    beast::flat_buffer received;
    http::response_parser<http::string_body> parser;
    parser.body_limit(kLargestAnswer);
    http::read(stream, received, parser);
    return {static_cast<int>(parser.get().result_int()), std::move(parser.get().body())};
  }

  Answer ask(http::verb verb, const std::string& target, std::string body) {
    http::request<http::string_body> request(verb, address.prefix + target, 11);
    request.set(http::field::host, host_header());
    request.set(http::field::connection, "close");
    if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
    if (verb == http::verb::post) request.set(http::field::content_type, "application/json");
    request.body() = std::move(body);
    request.prepare_payload();
    try {
      return address.tls ? exchange(connect_secure(), request) : exchange(connect(), request);
    } catch (const boost::system::system_error& error) {
      fail(error);
    }
  }

  template <class Stream>
  void open(Stream stream, const std::string& target) {
    websocket::stream<Stream> opened(std::move(stream));
    opened.set_option(websocket::stream_base::decorator([this](websocket::request_type& request) {
      if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
    }));
    opened.read_message_max(kLargestAnswer);
    opened.handshake(host_header(), target);
    socket = std::make_unique<SocketOver<Stream>>(std::move(opened));
  }
};

Remote::Remote(const std::string& url, std::string token) : state_(std::make_unique<State>()) {
  state_->url = url;
  state_->token = std::move(token);
  state_->address = parse_server_address(url);
  state_->tls.set_default_verify_paths();
}

Remote::~Remote() = default;

Remote::Answer Remote::get(const std::string& target) {
  return state_->ask(http::verb::get, target, "");
}

Remote::Answer Remote::post(const std::string& target, const Json& body) {
  return state_->ask(http::verb::post, target, graph::json_line(body));
}

void Remote::listen(const std::string& client) {
  auto target = state_->address.prefix + "/ws?clientId=" + client;
  try {
    if (state_->address.tls)
      state_->open(state_->connect_secure(), target);
    else
      state_->open(state_->connect(), target);
  } catch (const boost::system::system_error& error) {
    state_->fail(error);
  }
}

std::optional<Json> Remote::next(std::chrono::milliseconds wait) {
  auto& state = *state_;
  if (!state.reading) {
    state.reading = true;
    state.arrived = false;
    state.socket->read(state.buffer, [&state](boost::system::error_code code) {
      state.arrived = true;
      state.broken = code;
    });
  }
  state.context.restart();
  auto end = std::chrono::steady_clock::now() + wait;
  while (!state.arrived && std::chrono::steady_clock::now() < end)
    if (state.context.run_one_until(end) == 0) break;
  if (!state.arrived) return {};
  if (state.broken) state.fail(boost::system::system_error(state.broken));
  state.reading = false;
  auto text = beast::buffers_to_string(state.buffer.data());
  state.buffer.consume(state.buffer.size());
  if (!state.socket->is_text()) return Json::object();
  return graph::parse_json(text, state.url);
}

}  // namespace distorch::server
