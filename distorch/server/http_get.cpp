#include "distorch/server/http_get.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/server/remote.h"

namespace distorch::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

using Clock = std::chrono::steady_clock;
using Plain = beast::tcp_stream;
using Secure = beast::ssl_stream<beast::tcp_stream>;

constexpr std::chrono::seconds kPatience(60);
constexpr std::chrono::milliseconds kGlance(100);
constexpr std::size_t kPiece = 64 * 1024;

/// An address in two: who is asked, and for what.
struct Target {
  explicit Target(const std::string& url) {
    const auto scheme = url.find("://");
    if (scheme == std::string::npos)
      throw Error(ErrorKind::Usage, url, "is no address: it begins with http:// or https://");
    const auto slash = std::min(url.find_first_of("/?#", scheme + 3), url.size());
    origin = parse_server_address(url.substr(0, slash));
    path = url.substr(
        slash, url.find('#') == std::string::npos ? std::string::npos : url.find('#') - slash);
    if (!path.starts_with('/')) path.insert(0, 1, '/');
  }
  std::string host_in_url() const {
    return origin.host.find(':') == std::string::npos ? origin.host : "[" + origin.host + "]";
  }

  /// Without a usual port: signed addresses count every byte of it.
  std::string host_header() const {
    const bool usual = origin.port == (origin.tls ? "443" : "80");
    return usual ? host_in_url() : host_in_url() + ":" + origin.port;
  }

  ServerAddress origin;
  std::string path;
};

/// Carries one exchange through, looking between its parts whether it is to stop.
class Exchange {
 public:
  explicit Exchange(const HttpGet& get) : get_(get), target_(get.url) {}

  HttpAnswer run() {
    try {
      tls_.set_default_verify_paths();
      return target_.origin.tls ? over(secure()) : over(plain());
    } catch (const boost::system::system_error& problem) {
      throw Error(ErrorKind::Format, get_.url, std::string("does not answer: ") + problem.what());
    }
  }

 private:
  /// Starts something and waits for its end; `stop` makes it end soon.
  template <class Start, class Stop>
  void wait(Start start, Stop stop) {
    throw_if_interrupted();
    bool done = false;
    error_code code;
    start([&](error_code result, const auto&...) {
      code = result;
      done = true;
    });
    const auto limit = Clock::now() + kPatience;
    auto give_up = [&] {
      stop();
      context_.restart();
      while (!done && context_.run_one() > 0) {
      }
    };
    while (!done) {
      context_.restart();
      context_.run_one_for(kGlance);
      if (done) break;
      try {
        throw_if_interrupted();
      } catch (...) {
        give_up();
        throw;
      }
      if (Clock::now() < limit) continue;
      give_up();
      throw Error(ErrorKind::Format, get_.url,
                  fmt::format("says nothing for {} seconds", kPatience.count()));
    }
    if (code) throw boost::system::system_error(code);
  }

  Plain plain() {
    tcp::resolver resolver(context_);
    std::optional<tcp::resolver::results_type> places;
    wait(
        [&](auto done) {
          resolver.async_resolve(target_.origin.host, target_.origin.port,
                                 [&, done](error_code code, tcp::resolver::results_type found) {
                                   places = std::move(found);
                                   done(code);
                                 });
        },
        [&] { resolver.cancel(); });
    Plain stream(context_);
    wait([&](auto done) { stream.async_connect(*places, done); }, [&] { stream.close(); });
    return stream;
  }

  Secure secure() {
    Secure stream(plain(), tls_);
    SSL_set_tlsext_host_name(stream.native_handle(), target_.origin.host.c_str());
    stream.set_verify_mode(asio::ssl::verify_peer);
    stream.set_verify_callback(asio::ssl::host_name_verification(target_.origin.host));
    wait([&](auto done) { stream.async_handshake(asio::ssl::stream_base::client, done); },
         [&] { beast::get_lowest_layer(stream).close(); });
    return stream;
  }

  http::request<http::empty_body> request() const {
    http::request<http::empty_body> request(http::verb::get, target_.path, 11);
    request.set(http::field::host, target_.host_header());
    request.set(http::field::connection, "close");
    request.set(http::field::user_agent, "distorch");
    request.set(http::field::accept, "*/*");
    request.set(http::field::accept_encoding, "identity");
    for (const auto& [name, value] : get_.headers) request.set(name, value);
    return request;
  }

  template <class Stream>
  HttpAnswer over(Stream stream) {
    auto stop = [&] { beast::get_lowest_layer(stream).close(); };
    const auto asked = request();
    wait([&](auto done) { http::async_write(stream, asked, done); }, stop);
    beast::flat_buffer buffer;
    http::response_parser<http::buffer_body> parser;
    // Not boost::none: Boost 1.74 takes that for 0 where a body comes in chunks.
    parser.body_limit(std::numeric_limits<std::uint64_t>::max());
    wait([&](auto done) { http::async_read_header(stream, buffer, parser, done); }, stop);

    HttpAnswer answer{static_cast<int>(parser.get().result_int()), {}};
    for (const auto& field : parser.get()) {
      std::string name(field.name_string());
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      answer.headers[name] = std::string(field.value());
    }
    if (!get_.begins(answer)) return answer;
    std::vector<char> bytes(kPiece);
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = bytes.data();
      body.size = bytes.size();
      try {
        wait([&](auto done) { http::async_read_some(stream, buffer, parser, done); }, stop);
      } catch (const boost::system::system_error& problem) {
        if (problem.code() != http::error::need_buffer) throw;
      }
      if (const auto count = bytes.size() - body.size; count > 0) get_.piece({bytes.data(), count});
    }
    return answer;
  }

  const HttpGet& get_;
  Target target_;
  asio::io_context context_;
  asio::ssl::context tls_{asio::ssl::context::tls_client};
};

}  // namespace

std::string HttpAnswer::header(const std::string& lower_case_name) const {
  auto found = headers.find(lower_case_name);
  return found == headers.end() ? "" : found->second;
}

HttpAnswer http_get(const HttpGet& get) { return Exchange(get).run(); }

std::string origin_of(const std::string& url) {
  const Target target(url);
  return fmt::format("{}://{}:{}", target.origin.tls ? "https" : "http", target.host_in_url(),
                     target.origin.port);
}

std::string redirected(const std::string& url, const std::string& location) {
  std::string to = location;
  const auto scheme = url.substr(0, url.find("://"));
  if (location.starts_with("//"))
    to = scheme + ":" + location;
  else if (location.starts_with("/"))
    to = origin_of(url) + location;
  else if (location.find("://") == std::string::npos)
    to = url.substr(0, url.find_first_of("?#"))
             .substr(0, url.rfind('/', url.find_first_of("?#")) + 1) +
         location;
  if (scheme == "https" && !to.starts_with("https://"))
    throw Error(ErrorKind::Format, url, "leads to " + to + ", which is not encrypted");
  return to;
}

}  // namespace distorch::server
