#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "distorch/server/http.h"

namespace distorch::server {

struct GateOptions {
  /// Clients must show this; "" lets everybody in.
  std::string token;
  /// Names under which the server is reached beside numbers, "localhost" and the name of the
  /// machine, without a port.
  std::vector<std::string> host_names;
  /// An origin ("https://other.example") whose pages may call, or "*"; "" allows no page but ours.
  std::string cors_origin;
  /// Cookies are kept to encrypted connections.
  bool secure = false;
};

/// Decides who may ask, before a body is read.
///
/// Host: a page of a stranger whose name is made to point at this machine (DNS rebinding) sends its
/// own name, so only numbers, loopback names, the machine's name and `host_names` are taken; with a
/// token any name is, because the stranger's page has no cookie for it. Origin: it must be the Host
/// itself; a cross-site request that says so (Sec-Fetch-Site) only gets in to open the page. ComfyUI
/// checks the same for loopback only (server.py, create_origin_only_middleware).
///
/// Token: header "Authorization: Bearer TOKEN", cookie, or the query's "token" for a web socket;
/// GET /?token=TOKEN stores the cookie and leads to "/". "/health" is open. Tokens are compared in
/// a time that does not depend on where they differ.
class Gate {
 public:
  explicit Gate(GateOptions options = {});

  /// The refusal or the answer of the gate itself (401, 403, login, preflight), or nothing where the
  /// request may go on. `request.path` is the address as it was sent, with its query; `is_socket`
  /// where it asks for a web socket.
  std::optional<Response> check(const Request& request, bool is_socket = false) const;

  /// Adds the headers that every answer carries.
  void finish(const Request& request, Response& response) const;

 private:
  std::optional<Response> check_host(const Request& request) const;
  std::optional<Response> check_origin(const Request& request, bool is_socket) const;
  std::optional<Response> check_token(const Request& request, bool is_socket) const;
  bool allows_cors(const std::string& origin) const;

  GateOptions options_;
};

/// Equal or not, in a time that depends only on the length of `given`.
bool same_secret(const std::string& given, const std::string& secret);

/// "name:80", "[::1]:80", "::1" without the port; `port` 0 where there is none.
struct Authority {
  std::string host;
  std::uint16_t port = 0;
};
/// Nothing where the text is no authority. The host is in lower case, without brackets.
std::optional<Authority> parse_authority(const std::string& text);

}  // namespace distorch::server
