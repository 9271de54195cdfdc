#include "distorch/server/listener.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "distorch/server/body_stream.h"
#include "distorch/server/sockets.h"
#include "tests/server/client.h"

using namespace distorch;
using namespace distorch::server;
using namespace std::chrono_literals;

namespace {

std::filesystem::path temporary_file(const std::string& name, const std::string& content) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("distorch_listener_" + std::to_string(::getpid()) + "_" + name);
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::string pattern_of(std::size_t bytes) {
  std::string result(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) result[i] = static_cast<char>(i * 31 + i / 256);
  return result;
}

// Gives what a test puts into it.
class Source final : public BodyStream {
 public:
  Piece next() override {
    std::lock_guard lock(mutex_);
    ++asked;
    return {std::exchange(text_, {}), ended_, again};
  }
  void wake_with(std::function<void()> wake) override {
    std::lock_guard lock(mutex_);
    wake_ = std::move(wake);
  }
  void put(const std::string& text, bool ended = false) {
    std::function<void()> wake;
    {
      std::lock_guard lock(mutex_);
      text_ += text;
      ended_ = ended;
      wake = wake_;
    }
    if (wake) wake();
  }

  std::chrono::milliseconds again{60'000};
  std::atomic<int> asked{0};

 private:
  std::mutex mutex_;
  std::string text_;
  bool ended_ = false;
  std::function<void()> wake_;
};

// A server with a few routes on a free port.
struct Server {
  explicit Server(ListenerOptions options = {}, GateOptions gate_options = {})
      : gate(std::move(gate_options)) {
    options.port = 0;
    router.add({.pattern = "/hello", .handler = [](const Request& request) {
                  return Response::text("hello " + request.in_query("name").value_or("you"));
                }});
    router.add({.method = Method::Post, .pattern = "/echo", .handler = [](const Request& request) {
                  return Response::bytes(std::string(request.content()),
                                         "application/octet-stream");
                }});
    router.add(
        {.method = Method::Post, .pattern = "/upload/image", .handler = [](const Request& request) {
           return Response::text(std::to_string(request.content().size()));
         }});
    router.add({.pattern = "/slow", .handler = [](const Request&) {
                  std::this_thread::sleep_for(300ms);
                  return Response::text("done");
                }});
    router.add({.pattern = "/large", .handler = [](const Request&) {
                  return Response::bytes(std::string(64u << 20, 'x'), "application/octet-stream");
                }});
    router.add({.pattern = "/stream", .handler = [this](const Request&) {
                  Response response;
                  response.stream = source;
                  return response.with("Content-Type", "text/event-stream");
                }});
    router.add({.pattern = "/texts", .handler = [](const Request&) {
                  return Response::text(std::string(100'000, 'a'));
                }});
    router.add({.pattern = "/file", .handler = [this](const Request&) {
                  return Response::from_file(file, "image/png");
                }});
    listener.emplace(options, router, gate, &sockets);
    listener->start();
  }
  ~Server() {
    listener.reset();
    if (!file.empty()) std::filesystem::remove(file);
  }

  std::filesystem::path file;
  std::shared_ptr<Source> source = std::make_shared<Source>();
  Router router;
  Gate gate;
  Sockets sockets{Json{{"supports_preview_metadata", true}}};
  std::optional<Listener> listener;
  std::uint16_t port() const { return listener->port(); }
};

}  // namespace

TEST_CASE("listener: answers, keeps the connection, says where it listens") {
  Server server;
  TestClient client(server.port());
  CHECK(server.listener->urls() ==
        std::vector<std::string>{"http://127.0.0.1:" + std::to_string(server.port())});
  auto reply = client.get("/hello?name=a%20b");
  CHECK(reply.status == 200);
  CHECK(reply.body == "hello a b");
  CHECK(reply.headers["content-type"] == "text/plain; charset=utf-8");
  CHECK(reply.headers["x-content-type-options"] == "nosniff");
  CHECK(client.get("/api/hello").body == "hello you");
  CHECK(client.get("/nothing").status == 404);
  CHECK(client.post("/echo", "body\r\n\r\n").body == "body\r\n\r\n");
  CHECK(client.get("/hello", "Connection: close\r\n").headers["connection"] == "close");
  CHECK(client.is_closed());
}

TEST_CASE("listener: requests that do not wait for answers are answered in their order") {
  Server server;
  TestClient client(server.port());
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n" +
           std::to_string(10 + i);
  client.send(all + "HEAD /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
  for (int i = 0; i < 50; ++i) CHECK(client.receive().body == std::to_string(10 + i));
  auto head = client.receive(false);
  CHECK(head.status == 200);
  CHECK(head.headers["content-length"] == "9");
  CHECK(client.get("/hello").body == "hello you");
}

TEST_CASE("listener: bodies in chunks and with 100-continue") {
  Server server;
  TestClient client(server.port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  CHECK(client.receive().body == "abcde");
  client.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: "
      "100-continue\r\n\r\n");
  CHECK(client.receive().status == 100);
  client.send("xyz");
  CHECK(client.receive().body == "xyz");
}

TEST_CASE("listener: limits of headers and bodies; uploads have their own") {
  ListenerOptions options;
  options.header_bytes = 2000;
  options.body_bytes = 1000;
  options.upload_bytes = 100'000;
  Server server(options);
  {
    TestClient client(server.port());
    auto reply = client.post("/echo", std::string(1001, 'x'));
    CHECK(reply.status == 413);
    CHECK(reply.body.find("larger than 1000 bytes") != std::string::npos);
    CHECK(client.is_closed());
  }
  {
    TestClient client(server.port());
    CHECK(client.post("/echo", std::string(1000, 'x')).status == 200);
    CHECK(client.post("/upload/image", std::string(50'000, 'x')).body == "50000");
    CHECK(client.post("/api/v2/assets", std::string(50'000, 'x')).status == 404);
    CHECK(client.post("/api/upload/image", std::string(100'001, 'x')).status == 413);
  }
  {
    TestClient client(server.port());
    client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 20 && client.send("64\r\n" + std::string(100, 'x') + "\r\n"); ++i) {
    }
    CHECK(client.receive().status == 413);
  }
  {
    TestClient client(server.port());
    CHECK(client.get("/hello", "X: " + std::string(3000, 'x') + "\r\n").status == 431);
  }
  {
    TestClient client(server.port());
    // A gigabyte is refused before it is sent.
    client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n");
    CHECK(client.receive().status == 413);
  }
  CHECK(TestClient(server.port()).get("/hello").status == 200);
}

TEST_CASE("listener: large bodies are on disk, and whole") {
  ListenerOptions options;
  options.memory_body_bytes = 1000;
  const auto folder = std::filesystem::temp_directory_path() /
                      ("distorch_listener_" + std::to_string(::getpid()) + "_bodies");
  options.body_folder = folder;
  Server server(options);
  std::atomic<bool> stored{false};
  server.router.add({.method = Method::Post,
                     .pattern = "/userdata/{file}",
                     .handler = [&](const Request& request) {
                       stored = request.stored_body != nullptr;
                       if (stored) CHECK(request.body.empty());
                       return Response::bytes(std::string(request.content()),
                                              "application/octet-stream");
                     }});
  TestClient client(server.port());
  for (std::size_t bytes : {0, 1000, 1001, 65'537, 3'000'000}) {
    const std::string body = pattern_of(bytes);
    CHECK(client.post("/userdata/a", body).body == body);
    CHECK(stored == (bytes > 1000));
    CHECK(client.post("/echo", body).body == body);
  }
  CHECK(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
  // A folder that cannot be made: the system's own.
  std::ofstream(folder) << "a file";
  CHECK(client.post("/api/userdata/a", pattern_of(5000)).body == pattern_of(5000));
  std::filesystem::remove(folder);
}

TEST_CASE("listener: all bodies together have a limit") {
  ListenerOptions options;
  options.bodies_bytes = 10'000;
  Server server(options);
  TestClient client(server.port());
  CHECK(client.post("/echo", std::string(9'000, 'x')).status == 200);
  CHECK(client.post("/echo", std::string(11'000, 'x')).status == 503);
  CHECK(TestClient(server.port()).post("/echo", std::string(9'000, 'x')).status == 200);
}

TEST_CASE("listener: what is no request breaks only its own connection") {
  Server server;
  TestClient good(server.port());
  const std::string_view broken[] = {
      "hello\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "GET nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "BREW /hello HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "GET /hello HTTP/1.1\r\n\r\n",
      "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\n",
  };
  for (std::string_view text : broken) {
    CAPTURE(text);
    TestClient client(server.port());
    client.send(std::string(text));
    CHECK(client.receive().status == 400);
    CHECK(client.is_closed());
  }
  {
    TestClient vanished(server.port());
    vanished.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
  }
  CHECK(good.get("/hello").status == 200);
}

TEST_CASE("listener: connections that do nothing are closed, silent senders too") {
  ListenerOptions options;
  options.idle = 150ms;
  options.patience = 150ms;
  Server server(options);
  TestClient idle(server.port());
  TestClient half(server.port());
  half.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
  CHECK(idle.is_closed());
  CHECK(half.is_closed());
}

TEST_CASE("listener: a reader that does not read loses its connection, nobody else waits") {
  ListenerOptions options;
  options.patience = 200ms;
  options.handler_threads = 1;
  Server server(options);
  TestClient slow(server.port());
  slow.shrink_buffer();
  slow.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
  CHECK(TestClient(server.port()).get("/hello").status == 200);
  for (int i = 0; i < 100 && server.listener->connections() > 0; ++i)
    std::this_thread::sleep_for(50ms);
  CHECK(server.listener->connections() == 0);
}

TEST_CASE("listener: the connection that is idle longest makes room for a new one") {
  ListenerOptions options;
  options.connections = 2;
  Server server(options);
  TestClient first(server.port());
  CHECK(first.get("/hello").status == 200);
  std::this_thread::sleep_for(50ms);
  TestClient second(server.port());
  CHECK(second.get("/hello").status == 200);
  TestClient third(server.port());
  CHECK(third.get("/hello").status == 200);
  CHECK(first.is_closed());
  CHECK(second.get("/hello").status == 200);
}

TEST_CASE("listener: busy connections make no room: the new one is told") {
  ListenerOptions options;
  options.connections = 1;
  Server server(options);
  TestClient busy(server.port());
  busy.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::this_thread::sleep_for(100ms);
  TestClient late(server.port());
  CHECK(late.receive().status == 503);
  CHECK(busy.receive().body == "done");
}

TEST_CASE("listener: files by pieces, ranges, validators") {
  Server server;
  const std::string content = pattern_of(1'000'001);
  server.file = temporary_file("a.png", content);
  TestClient client(server.port());
  auto whole = client.get("/file");
  CHECK(whole.status == 200);
  CHECK(whole.body == content);
  CHECK(whole.headers["content-type"] == "image/png");
  CHECK(whole.headers["accept-ranges"] == "bytes");
  const std::string etag = whole.headers["etag"];
  CHECK(client.get("/file", "If-None-Match: \"x\", W/" + etag + "\r\n").status == 304);
  auto part = client.get("/file", "Range: bytes=500000-500009\r\n");
  CHECK(part.status == 206);
  CHECK(part.body == content.substr(500'000, 10));
  CHECK(part.headers["content-range"] == "bytes 500000-500009/1000001");
  CHECK(client.get("/file", "Range: bytes=999990-\r\n").body == content.substr(999'990));
  CHECK(client.get("/file", "Range: bytes=-7\r\n").body == content.substr(content.size() - 7));
  CHECK(client.get("/file", "Range: bytes=1000001-\r\n").status == 416);
  CHECK(client.get("/file", "Range: bytes=5-2\r\n").status == 200);
  CHECK(client.get("/file", "Range: bytes=0-1,5-6\r\n").status == 200);
  CHECK(client.get("/file", "Range: bytes=0-1\r\nIf-Range: \"old\"\r\n").status == 200);
  client.send("HEAD /file HTTP/1.1\r\nHost: localhost\r\n\r\n");
  CHECK(client.receive(false).headers["content-length"] == "1000001");
  std::filesystem::remove(server.file);
  CHECK(client.get("/file").status == 404);
}

TEST_CASE("listener: texts are compressed for those who take it") {
  ListenerOptions options;
  options.compress_loopback = true;
  Server server(options);
  TestClient client(server.port());
  CHECK(client.get("/texts").body.size() == 100'000);
  auto packed = client.get("/texts", "Accept-Encoding: br, gzip\r\n");
  CHECK(packed.headers["content-encoding"] == "gzip");
  CHECK(packed.body.size() < 1000);
  CHECK(client.get("/texts", "Accept-Encoding: gzip;q=0\r\n").body.size() == 100'000);
  CHECK_FALSE(
      client.get("/hello", "Accept-Encoding: gzip\r\n").headers.contains("content-encoding"));
}

TEST_CASE("listener: stopping lets the running answer end and closes the rest") {
  Server server;
  TestClient busy(server.port());
  TestClient idle(server.port());
  CHECK(idle.get("/hello").status == 200);
  busy.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::this_thread::sleep_for(50ms);
  const std::uint16_t port = server.port();
  std::thread stopper([&] { server.listener->stop(); });
  CHECK(busy.receive().body == "done");
  CHECK(idle.is_closed());
  stopper.join();
  CHECK(server.listener->connections() == 0);
  CHECK_THROWS(TestClient(port).get("/hello"));
}

TEST_CASE("listener: a port in use and a wrong address are one clear error") {
  Server server;
  ListenerOptions options;
  options.port = server.port();
  try {
    Listener second(options, server.router, server.gate, nullptr);
    FAIL("the port was taken twice");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    CHECK(std::string(error.what()) ==
          "127.0.0.1 port " + std::to_string(server.port()) +
              ": is in use by another program; stop it or choose another port");
  }
  options.addresses = {"192.0.2.1"};
  CHECK_THROWS_WITH(Listener(options, server.router, server.gate, nullptr),
                    doctest::Contains("192.0.2.1"));
}

TEST_CASE("listener: a key pair that is none is named") {
  Router router;
  Gate gate;
  ListenerOptions options;
  options.port = 0;
  options.tls = KeyPair{"no_such.pem", "no_such.key"};
  CHECK_THROWS_WITH(Listener(options, router, gate, nullptr),
                    "no_such.pem: is not there; TLS needs it");
  const auto file = temporary_file("bad.pem", "no key");
  options.tls = KeyPair{file, file};
  CHECK_THROWS_WITH(Listener(options, router, gate, nullptr), doctest::Contains("PEM"));
  std::filesystem::remove(file);
}

TEST_CASE("listener: many connections at one time") {
  Server server;
  std::vector<std::thread> threads;
  std::atomic<int> fine{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        TestClient client(server.port());
        fine += client.get("/hello").status == 200 && client.get("/hello").status == 200;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(fine == 200);
}

TEST_CASE("listener: a body that is made while it is sent") {
  Server server;
  TestClient client(server.port());
  auto reply = client.get("/stream");
  CHECK(reply.status == 200);
  CHECK(reply.headers["transfer-encoding"] == "chunked");
  CHECK(reply.headers["connection"] == "close");
  CHECK(!reply.headers.contains("content-length"));
  server.source->put("hello");
  CHECK(client.receive_text("5\r\nhello\r\n"));
  server.source->put(std::string(300'000, 'x'));
  CHECK(client.receive_text("493e0\r\n" + std::string(300'000, 'x') + "\r\n"));
  server.source->put("end", true);
  CHECK(client.receive_text("3\r\nend\r\n0\r\n\r\n"));
  CHECK(client.is_closed());
  TestClient other(server.port());
  CHECK(other.get("/hello").body == "hello you");
  other.send("HEAD /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
  CHECK(other.receive(false).status == 200);
}

TEST_CASE("listener: a stream asks again by itself, and goes with its client and its server") {
  Server server;
  server.source->again = 10ms;
  {
    TestClient client(server.port());
    CHECK(client.get("/stream").status == 200);
    for (int i = 0; i < 1000 && server.source->asked < 5; ++i) std::this_thread::sleep_for(10ms);
    CHECK(server.source->asked >= 5);
  }
  // The client has left: the next bytes tell.
  std::weak_ptr<Source> left = server.source;
  for (int i = 0; i < 1000 && left.use_count() > 1; ++i) {
    server.source->put("x");
    std::this_thread::sleep_for(10ms);
  }
  CHECK(left.use_count() == 1);
  TestClient client(server.port());
  CHECK(client.get("/stream").status == 200);
  const auto begin = std::chrono::steady_clock::now();
  server.listener->stop();
  CHECK(std::chrono::steady_clock::now() - begin < 8s);
  CHECK(client.is_closed());
}
