#include "distorch/server/remote.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"

using namespace distorch;
using namespace distorch::server;

TEST_CASE("the address of a server: scheme, host, port, a path in front") {
  auto plain = parse_server_address("http://127.0.0.1:8188");
  CHECK(!plain.tls);
  CHECK(plain.host == "127.0.0.1");
  CHECK(plain.port == "8188");
  CHECK(plain.prefix == "");
  auto secure = parse_server_address("https://pictures.example/studio/");
  CHECK(secure.tls);
  CHECK(secure.host == "pictures.example");
  CHECK(secure.port == "443");
  CHECK(secure.prefix == "/studio");
  CHECK(parse_server_address("http://[::1]:9").host == "::1");
  CHECK(parse_server_address("http://[::1]:9").port == "9");
  CHECK(parse_server_address("http://[::1]").port == "80");
  CHECK(parse_server_address("box").port == "8188");
  for (const char* wrong : {"", "ftp://box", "http://", "http://box:x", "http://:80", "box:"})
    CHECK_THROWS_AS(parse_server_address(wrong), Error);
}

TEST_CASE("a server that is not there is named") {
  // Port 1 of this machine: nobody listens there.
  Remote remote("http://127.0.0.1:1", "");
  CHECK_THROWS_WITH(remote.get("/queue"), doctest::Contains("http://127.0.0.1:1: does not answer"));
}
