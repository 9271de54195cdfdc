#include "distorch/server/origin.h"

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "distorch/base/text.h"
#include "distorch/server/address.h"

namespace distorch::server {
namespace {

constexpr const char* kCookie = "distorch_token";
constexpr int kCookieSeconds = 30 * 24 * 3600;
constexpr std::uint16_t kHttpPort = 80;
constexpr std::uint16_t kHttpsPort = 443;

bool is_number_address(const std::string& host) {
  in6_addr storage{};
  return inet_pton(AF_INET, host.c_str(), &storage) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &storage) == 1;
}

std::string machine_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? lower(name) : "";
}

Response refusal(int status, const std::string& sentence) {
  return Response::json(Json{{"error", sentence}}, status);
}

std::string_view path_of(const Request& request) {
  return std::string_view(request.path).substr(0, request.path.find('?'));
}

std::optional<std::string> query_token(const Request& request) {
  const std::size_t mark = request.path.find('?');
  if (mark == std::string::npos) return std::nullopt;
  for (auto& [name, value] : parse_query(std::string_view(request.path).substr(mark + 1)))
    if (name == "token") return value;
  return std::nullopt;
}

std::string cookie_of(const Request& request, std::string_view name) {
  const std::string header = request.header("cookie");
  std::string_view rest = header;
  while (!rest.empty()) {
    std::string_view piece = rest.substr(0, rest.find(';'));
    rest.remove_prefix(std::min(rest.size(), piece.size() + 1));
    while (!piece.empty() && piece.front() == ' ') piece.remove_prefix(1);
    if (piece.size() > name.size() && piece.starts_with(name) && piece[name.size()] == '=')
      return percent_decoded(piece.substr(name.size() + 1));
  }
  return "";
}

std::string bearer_of(const Request& request) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string header = request.header("authorization");
  if (header.size() <= kScheme.size() || lower(header.substr(0, kScheme.size())) != kScheme)
    return "";
  return header.substr(kScheme.size());
}

Response login_page() {
  Response page = Response::bytes(
      "<!doctype html><meta charset=\"utf-8\"><title>distorch</title>"
      "<body style=\"font-family:sans-serif;margin:4em\"><h1>distorch</h1>"
      "<form method=\"get\" action=\"/\"><label>Token <input type=\"password\" name=\"token\" "
      "autofocus></label> <button>Log in</button></form></body>\n",
      "text/html; charset=utf-8");
  page.status = 401;
  page.with("WWW-Authenticate", "Bearer").with("Cache-Control", "no-store");
  return page;
}

}  // namespace

bool same_secret(const std::string& given, const std::string& secret) {
  // `volatile` keeps the compiler from leaving the loop early.
  volatile unsigned char difference = given.size() == secret.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const char wanted = secret.empty() ? '\0' : secret[i % secret.size()];
    difference = static_cast<unsigned char>(difference | (given[i] ^ wanted));
  }
  return difference == 0;
}

std::optional<Authority> parse_authority(const std::string& text) {
  std::string host = text;
  std::string port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    const std::string rest = text.substr(end + 1);
    if (!rest.empty() && rest.front() != ':') return std::nullopt;
    port = rest.empty() ? "" : rest.substr(1);
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    host = text.substr(0, text.find(':'));
    port = text.substr(text.find(':') + 1);
  }
  Authority result{.host = lower(host)};
  // A name may end with a dot.
  if (result.host.ends_with('.')) result.host.pop_back();
  if (result.host.empty() || result.host.find_first_of(" \t/\\@?#%,<>\"'") != std::string::npos)
    return std::nullopt;
  if (!port.empty()) {
    auto [end, status] = std::from_chars(port.data(), port.data() + port.size(), result.port);
    if (status != std::errc() || end != port.data() + port.size()) return std::nullopt;
  }
  return result;
}

Gate::Gate(GateOptions options) : options_(std::move(options)) {
  for (std::string& name : options_.host_names) name = lower(name);
  options_.host_names.push_back("localhost");
  if (std::string name = machine_name(); !name.empty()) {
    options_.host_names.push_back(name);
    options_.host_names.push_back(name + ".local");
  }
}

std::optional<Response> Gate::check(const Request& request, bool is_socket) const {
  if (auto refused = check_host(request)) return refused;
  if (auto refused = check_origin(request, is_socket)) return refused;
  return check_token(request, is_socket);
}

std::optional<Response> Gate::check_host(const Request& request) const {
  const auto host = parse_authority(request.header("host"));
  if (!host) return refusal(400, "the request names no host (header Host)");
  if (!options_.token.empty() || is_number_address(host->host) ||
      host->host.ends_with(".localhost") ||
      std::find(options_.host_names.begin(), options_.host_names.end(), host->host) !=
          options_.host_names.end())
    return std::nullopt;
  return refusal(403,
                 "'" + host->host +
                     "' is no name of this server; use its address, or start it with that name "
                     "allowed or with a token");
}

bool Gate::allows_cors(const std::string& origin) const {
  return !options_.cors_origin.empty() &&
         (options_.cors_origin == "*" || options_.cors_origin == origin);
}

std::optional<Response> Gate::check_origin(const Request& request, bool is_socket) const {
  const std::string origin = request.header("origin");
  if (allows_cors(origin)) {
    if (request.method == Method::Options) return Response::empty(200);
    return std::nullopt;
  }
  const bool opens_page = request.method == Method::Get && !is_socket &&
                          request.header("sec-fetch-mode") == "navigate" &&
                          request.header("sec-fetch-dest") == "document";
  if (request.header("sec-fetch-site") == "cross-site" && !opens_page)
    return refusal(403, "a page of another site may not ask this server");
  if (origin.empty()) return std::nullopt;
  const bool encrypted = origin.starts_with("https://");
  const std::size_t scheme = origin.find("://");
  const auto from =
      scheme == std::string::npos ? std::nullopt : parse_authority(origin.substr(scheme + 3));
  auto host = parse_authority(request.header("host"));
  const std::uint16_t usual = encrypted ? kHttpsPort : kHttpPort;
  const bool same = from && host && from->host == host->host &&
                    (from->port ? from->port : usual) == (host->port ? host->port : usual);
  if (same) return std::nullopt;
  return refusal(403, "a page of '" + origin + "' may not ask this server");
}

std::optional<Response> Gate::check_token(const Request& request, bool is_socket) const {
  if (options_.token.empty() || path_of(request) == "/health") return std::nullopt;
  if (same_secret(bearer_of(request), options_.token) ||
      same_secret(cookie_of(request, kCookie), options_.token))
    return std::nullopt;
  const auto given = query_token(request);
  const bool fits = given && same_secret(*given, options_.token);
  const bool opens_page = path_of(request) == "/" && request.method == Method::Get && !is_socket;
  if (is_socket && fits) return std::nullopt;
  if (opens_page && fits) {
    std::string cookie =
        std::string(kCookie) + "=" + percent_encoded(options_.token) +
        "; Path=/; HttpOnly; SameSite=Lax; Max-Age=" + std::to_string(kCookieSeconds);
    if (options_.secure) cookie += "; Secure";
    return Response::empty(303)
        .with("Location", "/")
        .with("Set-Cookie", cookie)
        .with("Cache-Control", "no-store");
  }
  if (opens_page) return login_page();
  return refusal(401,
                 "this server wants a token: header 'Authorization: Bearer ...', or log in at /")
      .with("WWW-Authenticate", "Bearer");
}

void Gate::finish(const Request& request, Response& response) const {
  // Not on refusals: a style sheet that is not there would be an error of its type in the page.
  if (response.status < 400) response.with("X-Content-Type-Options", "nosniff");
  response.with("Referrer-Policy", "same-origin");
  const std::string origin = request.header("origin");
  if (allows_cors(origin)) {
    response
        .with("Access-Control-Allow-Origin",
              options_.cors_origin == "*" && origin.empty() ? "*" : origin)
        .with("Access-Control-Allow-Methods", "POST, GET, DELETE, PUT, OPTIONS, PATCH")
        .with("Access-Control-Allow-Headers",
              "Content-Type, Authorization, Comfy-User, Idempotency-Key")
        .with("Vary", "Origin");
    if (options_.cors_origin != "*") response.with("Access-Control-Allow-Credentials", "true");
    return;
  }
  response.with("X-Frame-Options", "SAMEORIGIN")
      .with("Cross-Origin-Resource-Policy", "same-origin");
}

}  // namespace distorch::server
