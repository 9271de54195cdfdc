#include "distorch/server/origin.h"

#include <doctest/doctest.h>

using namespace distorch::server;

namespace {

using Headers = std::map<std::string, std::string>;

// 0 where the gate lets the request pass.
int status(const Gate& gate, Request request, bool is_socket = false) {
  auto answer = gate.check(request, is_socket);
  return answer ? answer->status : 0;
}

int asked(const Gate& gate, Headers headers, Method method = Method::Post,
          std::string path = "/prompt") {
  return status(gate, {.method = method, .path = std::move(path), .headers = std::move(headers)});
}

std::string header_of(const Response& response, const std::string& name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

}  // namespace

TEST_CASE("gate: names that this machine has, and no name of a stranger") {
  Gate gate({.host_names = {"Box.Example"}});
  for (const char* host : {"127.0.0.1:8188", "localhost", "LOCALHOST:80", "localhost.:8188",
                           "a.localhost", "[::1]:8188", "192.168.1.5:8188", "box.example:8188"}) {
    CAPTURE(host);
    CHECK(asked(gate, {{"host", host}}) == 0);
  }
  for (const char* host :
       {"evil.example", "evil.example:8188", "localhost.evil.example", "127.0.0.1.evil.example"}) {
    CAPTURE(host);
    CHECK(asked(gate, {{"host", host}}) == 403);
  }
  for (const char* host : {"", "a b", "[::1", "x:y", "a@localhost"}) {
    CAPTURE(host);
    CHECK(asked(gate, {{"host", host}}) == 400);
  }
  CHECK(asked(Gate(), {}) == 400);
}

TEST_CASE("gate: only our own pages may ask") {
  Gate gate;
  auto from = [&](const char* origin, const char* host = "127.0.0.1:8188") {
    return asked(gate, {{"host", host}, {"origin", origin}});
  };
  CHECK(from("http://127.0.0.1:8188") == 0);
  CHECK(from("http://localhost:8188") == 403);
  CHECK(from("http://127.0.0.1:3000") == 403);
  CHECK(from("http://127.0.0.1", "127.0.0.1:80") == 0);
  CHECK(from("https://127.0.0.1", "127.0.0.1:443") == 0);
  CHECK(from("http://127.0.0.1", "127.0.0.1") == 0);
  CHECK(from("https://evil.example") == 403);
  CHECK(from("null") == 403);
  CHECK(from("") == 0);
}

TEST_CASE("gate: requests that say that they come from another site") {
  Gate gate;
  Headers headers{{"host", "localhost:8188"}, {"sec-fetch-site", "cross-site"}};
  CHECK(asked(gate, headers, Method::Get, "/view") == 403);
  headers["sec-fetch-mode"] = "navigate";
  headers["sec-fetch-dest"] = "document";
  CHECK(asked(gate, headers, Method::Get, "/") == 0);
  CHECK(asked(gate, headers, Method::Post, "/prompt") == 403);
  headers["sec-fetch-dest"] = "iframe";
  CHECK(asked(gate, headers, Method::Get, "/") == 403);
  headers["sec-fetch-site"] = "same-origin";
  CHECK(asked(gate, headers, Method::Get, "/") == 0);
}

TEST_CASE("gate: an origin that is allowed") {
  Gate gate({.cors_origin = "https://other.example"});
  Headers headers{
      {"host", "localhost"}, {"origin", "https://other.example"}, {"sec-fetch-site", "cross-site"}};
  CHECK(asked(gate, headers) == 0);
  CHECK(asked(gate, headers, Method::Options) == 200);
  Request request{.headers = headers};
  Response response;
  gate.finish(request, response);
  CHECK(header_of(response, "Access-Control-Allow-Origin") == "https://other.example");
  headers["origin"] = "https://evil.example";
  CHECK(asked(gate, headers) == 403);
  Response plain;
  gate.finish({.headers = headers}, plain);
  CHECK(header_of(plain, "Access-Control-Allow-Origin") == "");
  CHECK(header_of(plain, "X-Frame-Options") == "SAMEORIGIN");
}

TEST_CASE("gate: token by header, cookie, socket and log-in") {
  Gate gate({.token = "s3cret/ü", .secure = true});
  const std::string host = "any.example";
  CHECK(asked(gate, {{"host", host}}) == 401);
  CHECK(asked(gate, {{"host", host}, {"authorization", "Bearer wrong"}}) == 401);
  CHECK(asked(gate, {{"host", host}, {"authorization", "Bearer s3cret/ü"}}) == 0);
  CHECK(asked(gate, {{"host", host}, {"authorization", "bearer s3cret/ü"}}) == 0);
  CHECK(asked(gate, {{"host", host}}, Method::Get, "/health") == 0);
  CHECK(asked(gate, {{"host", host}}, Method::Post, "/prompt?token=s3cret%2F%C3%BC") == 401);

  Request page{.path = "/", .headers = {{"host", host}}};
  auto login = gate.check(page);
  REQUIRE(login);
  CHECK(login->status == 401);
  CHECK(login->body.find("<form") != std::string::npos);
  page.path = "/?token=wrong";
  CHECK(status(gate, page) == 401);
  page.path = "/?token=s3cret%2F%C3%BC";
  auto entered = gate.check(page);
  REQUIRE(entered);
  CHECK(entered->status == 303);
  CHECK(header_of(*entered, "Location") == "/");
  const std::string cookie = header_of(*entered, "Set-Cookie");
  CHECK(cookie.find("HttpOnly; SameSite=Lax") != std::string::npos);
  CHECK(cookie.find("; Secure") != std::string::npos);
  const std::string pair = cookie.substr(0, cookie.find(';'));
  CHECK(asked(gate, {{"host", host}, {"cookie", "a=b; " + pair + "; c=d"}}) == 0);
  CHECK(asked(gate, {{"host", host}, {"cookie", "x" + pair}}) == 401);

  Request socket{.path = "/ws?clientId=a&token=s3cret%2F%C3%BC", .headers = {{"host", host}}};
  CHECK(status(gate, socket, true) == 0);
  CHECK(status(gate, socket, false) == 401);
}

TEST_CASE("gate: secrets are equal or not") {
  CHECK(same_secret("abc", "abc"));
  CHECK_FALSE(same_secret("abd", "abc"));
  CHECK_FALSE(same_secret("ab", "abc"));
  CHECK_FALSE(same_secret("abcabc", "abc"));
  CHECK_FALSE(same_secret("", "abc"));
}
