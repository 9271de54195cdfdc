#include "distorch/server/request_head.h"

#include <optional>

#include "distorch/base/text.h"

namespace distorch::server {
namespace {

namespace http = boost::beast::http;

std::optional<Method> method_of(http::verb verb) {
  switch (verb) {
    case http::verb::get: return Method::Get;
    case http::verb::head: return Method::Head;
    case http::verb::post: return Method::Post;
    case http::verb::put: return Method::Put;
    case http::verb::patch: return Method::Patch;
    case http::verb::delete_: return Method::Delete;
    case http::verb::options: return Method::Options;
    default: return std::nullopt;
  }
}

// "http://host/path" (what a proxy is asked) becomes "/path".
std::string without_origin(std::string target) {
  for (std::string_view scheme : {"http://", "https://"})
    if (lower(target.substr(0, scheme.size())) == scheme) {
      const std::size_t slash = target.find_first_of("/?", scheme.size());
      if (slash == std::string::npos) return "/";
      return target[slash] == '?' ? "/" + target.substr(slash) : target.substr(slash);
    }
  return target;
}

std::string_view path_of(std::string_view address) { return address.substr(0, address.find('?')); }

}  // namespace

std::string read_request_head(const http::request<http::string_body>& head, Request& request) {
  const auto method = method_of(head.method());
  if (!method)
    return "the method '" + std::string(head.method_string()) + "' is none that this server knows";
  request.method = *method;
  request.path = without_origin(std::string(head.target()));
  if (request.path == "*" && *method == Method::Options) request.path = "/";
  if (request.path.empty() || request.path.front() != '/')
    return "the address '" + request.path.substr(0, 100) + "' does not begin with '/'";
  for (const auto& field : head) {
    const std::string name = lower(std::string(field.name_string()));
    const std::string value(field.value());
    auto [entry, is_new] = request.headers.emplace(name, value);
    if (is_new) continue;
    if (name == "host" || name == "origin" || name == "authorization")
      return "the header '" + name + "' is there twice";
    entry->second += (name == "cookie" ? "; " : ", ") + value;
  }
  return "";
}

std::string plain_address(const boost::asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6())
        .to_string();
  return address.to_string();
}

bool is_socket_address(std::string_view address) {
  return path_of(address) == "/ws" || path_of(address) == "/api/ws";
}

bool is_upload(std::string_view address) {
  return address.starts_with("/upload/") || address.starts_with("/api/upload/") ||
         path_of(address) == "/api/v2/assets";
}

}  // namespace distorch::server
