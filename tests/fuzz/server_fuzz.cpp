// libFuzzer target: any bytes to a running listener. The first byte picks where they go: as HTTP
// requests, or as frames of a web socket that has been opened. Whatever they are, the connection
// ends, the next one is served, and nothing crashes, leaks or waits for ever.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "distorch/server/listener.h"
#include "distorch/server/sockets.h"
#include "tests/server/client.h"

namespace {

using namespace distorch::server;

constexpr std::size_t kBetweenChecks = 64;

struct Server {
  Server() {
    router.add({.method = Method::Post, .pattern = "/json", .handler = [](const Request& request) {
                  return Response::json(request.json());
                }});
    // Takes files: from a few bytes on they are on disk.
    router.add({.method = Method::Post,
                .pattern = "/userdata/{file}",
                .handler = [](const Request& request) {
                  return Response::bytes(std::string(request.content()), "text/plain");
                }});
    router.add({.pattern = "/{path...}", .handler = [](const Request& request) {
                  return Response::json({{"path", request.path}, {"query", request.query}});
                }});
    ListenerOptions options;
    options.port = 0;
    options.handler_threads = 2;
    options.network_threads = 1;
    options.body_bytes = 1u << 16;
    options.memory_body_bytes = 8;
    options.compress_loopback = true;
    options.idle = std::chrono::milliseconds(500);
    options.patience = std::chrono::milliseconds(500);
    listener = std::make_unique<Listener>(options, router, gate, &sockets);
    listener->start();
  }
  Router router;
  Gate gate;
  Sockets sockets{Json{{"assets", false}}};
  std::unique_ptr<Listener> listener;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Server server;
  static std::size_t runs = 0;
  if (size == 0) return 0;
  {
    TestClient client(server.listener->port());
    if ((data[0] & 1) != 0 && client.open_socket("/ws?clientId=fuzz") != 101) std::abort();
    client.send({reinterpret_cast<const char*>(data) + 1, size - 1});
    client.end_sending();
    if (!client.is_closed(std::chrono::seconds(5))) std::abort();
  }
  if (++runs % kBetweenChecks == 0 && TestClient(server.listener->port()).get("/x").status != 200)
    std::abort();
  return 0;
}
