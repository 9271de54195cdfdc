#include "distorch/server/sockets.h"

#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <thread>

#include "distorch/server/listener.h"
#include "tests/server/client.h"

using namespace distorch;
using namespace distorch::server;
using namespace std::chrono_literals;

namespace {

class FakeLink : public SocketLink {
 public:
  void push(const Frame& frame) override { got += *frame.bytes + "\n"; }
  std::string got;
};

// Writes down what it is told; greets new clients as the queue does.
class Recorder : public SocketListener {
 public:
  void on_open(const std::string& client) override {
    add("open " + client);
    if (hub) hub->send(client, "status", {{"sid", client}});
  }
  void on_text(const std::string& client, const std::string& text) override {
    add("text " + client + " " + text);
  }
  void on_close(const std::string& client) override { add("close " + client); }

  bool wait_for(const std::string& line) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s,
                             [&] { return lines_.find(line + "\n") != std::string::npos; });
  }
  std::string lines() {
    std::lock_guard lock(mutex_);
    return lines_;
  }
  Sockets* hub = nullptr;

 private:
  void add(const std::string& line) {
    std::lock_guard lock(mutex_);
    lines_ += line + "\n";
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string lines_;
};

struct Server {
  explicit Server(ListenerOptions options = {}, GateOptions gate_options = {})
      : gate(std::move(gate_options)) {
    options.port = 0;
    recorder.hub = &hub;
    hub.set_listener(&recorder);
    router.add(
        {.pattern = "/hello", .handler = [](const Request&) { return Response::text("hello"); }});
    listener.emplace(options, router, gate, &hub);
    listener->start();
  }
  Router router;
  Gate gate;
  Recorder recorder;
  Sockets hub{Json{{"max_upload_size", 100}}};
  std::optional<Listener> listener;
};

Json json_of(const TestClient::Message& message) {
  CHECK(message.opcode == 1);
  return Json::parse(message.payload, nullptr, false);
}

}  // namespace

TEST_CASE("sockets: messages go to one client or to all; features are answered each time") {
  Recorder recorder;
  Sockets hub({{"assets", false}}, &recorder);
  auto a = std::make_shared<FakeLink>();
  auto b = std::make_shared<FakeLink>();
  hub.opened("a", a);
  hub.opened("b", b);
  hub.send("a", "x", 1);
  hub.send("", "y", {{"n", 2}});
  hub.send("nobody", "z", 3);
  CHECK(a->got == "{\"type\":\"x\",\"data\":1}\n{\"type\":\"y\",\"data\":{\"n\":2}}\n");
  CHECK(b->got == "{\"type\":\"y\",\"data\":{\"n\":2}}\n");
  CHECK(hub.features_of("b") == Json::object());
  b->got = "";
  hub.received("b", b.get(),
               R"({"type":"feature_flags","data":{"supports_preview_metadata":true}})");
  CHECK(hub.features_of("b") == Json{{"supports_preview_metadata", true}});
  CHECK(b->got == "{\"type\":\"feature_flags\",\"data\":{\"assets\":false}}\n");
  hub.received("b", b.get(), R"({"type":"feature_flags","data":[]})");
  CHECK(hub.features_of("b") == Json::object());
  hub.received("b", b.get(), "{ broken");
  hub.received("b", b.get(), "[1]");
  CHECK(recorder.lines() == "open a\nopen b\ntext b { broken\ntext b [1]\n");
}

TEST_CASE("sockets: a client that connects again takes its old socket's place") {
  Recorder recorder;
  Sockets hub({}, &recorder);
  auto old = std::make_shared<FakeLink>();
  auto current = std::make_shared<FakeLink>();
  hub.opened("a", old);
  hub.opened("a", current);
  hub.send("a", "x", 1);
  CHECK(old->got == "");
  CHECK(current->got != "");
  hub.closed("a", old.get());
  CHECK(hub.count() == 1);
  hub.closed("a", current.get());
  CHECK(hub.count() == 0);
  CHECK(recorder.lines() == "open a\nopen a\nclose a\n");
}

TEST_CASE("sockets: a socket opens as its client, hears and tells") {
  Server server;
  TestClient client(server.listener->port());
  REQUIRE(client.open_socket("/ws?clientId=me%2F1") == 101);
  CHECK(json_of(client.receive_frame())["data"]["sid"] == "me/1");
  client.send_frame(1, R"({"type":"feature_flags","data":{"a":1}})");
  CHECK(json_of(client.receive_frame())["data"]["max_upload_size"] == 100);
  CHECK(server.hub.features_of("me/1")["a"] == 1);
  client.send_frame(1, "anything");
  CHECK(server.recorder.wait_for("text me/1 anything"));
  server.hub.send_binary("me/1", 4, "payload");
  auto binary = client.receive_frame();
  CHECK(binary.opcode == 2);
  CHECK(binary.payload == std::string("\0\0\0\4payload", 11));
  client.send_frame(9, "ping");
  CHECK(client.receive_frame().opcode == 10);
}

TEST_CASE("sockets: a client that says goodbye is gone soon, also where it keeps its connection") {
  Server server;
  TestClient client(server.listener->port());
  REQUIRE(client.open_socket("/ws?clientId=a") == 101);
  CHECK(client.receive_frame().opcode == 1);
  client.send_frame(8, "");
  CHECK(client.receive_frame().opcode == 8);
  CHECK(server.recorder.wait_for("close a"));
}

TEST_CASE("sockets: an id is made where none is given") {
  Server server;
  TestClient client(server.listener->port());
  REQUIRE(client.open_socket("/api/ws") == 101);
  const std::string id = json_of(client.receive_frame())["data"]["sid"];
  CHECK(id.size() == 32);
  CHECK(id.find_first_not_of("0123456789abcdef") == std::string::npos);
  TestClient other(server.listener->port());
  CHECK(other.open_socket("/hello") == 200);
  CHECK(other.open_socket("/ws?clientId=x", "Origin: http://evil.example\r\n") == 403);
}

TEST_CASE("sockets: malformed frames close only their socket") {
  Server server;
  TestClient good(server.listener->port());
  REQUIRE(good.open_socket("/ws?clientId=good") == 101);
  CHECK(good.receive_frame().opcode == 1);
  const std::string broken[] = {
      std::string(14, '\xff'),
      // Not masked.
      std::string("\x81\x01x", 3),
      // A text that is no UTF-8.
      std::string("\x81\x81\0\0\0\0\xff", 7),
      // More than a message may have.
      std::string("\x81\xff\0\0\0\1\0\0\0\0\0\0\0\0", 14),
      // A ping in two pieces.
      std::string("\x09\x80\0\0\0\0", 6),
  };
  for (const std::string& bytes : broken) {
    TestClient bad(server.listener->port());
    REQUIRE(bad.open_socket("/ws?clientId=bad") == 101);
    CHECK(bad.receive_frame().opcode == 1);
    bad.send(bytes);
    CHECK(bad.is_closed());
  }
  server.hub.send("", "still", 1);
  CHECK(json_of(good.receive_frame())["type"] == "still");
}

TEST_CASE("sockets: a client that does not read is given up, others hear everything") {
  Server server;
  TestClient slow(server.listener->port());
  slow.shrink_buffer();
  REQUIRE(slow.open_socket("/ws?clientId=slow") == 101);
  TestClient good(server.listener->port());
  REQUIRE(good.open_socket("/ws?clientId=good") == 101);
  CHECK(server.recorder.wait_for("open good"));
  const std::string large(1u << 20, 'x');
  std::thread sender([&] {
    for (int i = 0; i < 100; ++i) {
      server.hub.send("slow", "large", large);
      server.hub.send("good", "n", i);
    }
  });
  CHECK(json_of(good.receive_frame())["type"] == "status");
  for (int i = 0; i < 100; ++i) CHECK(json_of(good.receive_frame())["data"] == i);
  sender.join();
  CHECK(server.recorder.wait_for("close slow"));
  CHECK(server.hub.count() == 1);
}

TEST_CASE("sockets: stopping says goodbye") {
  Server server;
  TestClient client(server.listener->port());
  REQUIRE(client.open_socket("/ws?clientId=a") == 101);
  CHECK(client.receive_frame().opcode == 1);
  std::thread stopper([&] { server.listener->stop(); });
  auto last = client.receive_frame();
  CHECK(last.opcode == 8);
  // 1001: going away.
  CHECK(last.payload.substr(0, 2) == "\x03\xe9");
  client.send_frame(8, last.payload);
  stopper.join();
  CHECK(server.recorder.wait_for("close a"));
}

TEST_CASE("sockets: a token is wanted for sockets too") {
  Server server({}, {.token = "secret"});
  CHECK(TestClient(server.listener->port()).open_socket("/ws") == 401);
  CHECK(TestClient(server.listener->port()).open_socket("/ws?token=wrong") == 401);
  CHECK(TestClient(server.listener->port()).open_socket("/ws?clientId=a&token=secret") == 101);
}

TEST_CASE("sockets: many open and close while messages are sent to all") {
  Server server;
  std::atomic<bool> done{false};
  std::thread sender([&] {
    while (!done) {
      server.hub.send("", "tick", 1);
      // Faster than any client reads, those that have just come would be disconnected.
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  std::vector<std::thread> threads;
  std::atomic<int> fine{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        TestClient client(server.listener->port());
        fine += client.open_socket("/ws?clientId=" + std::to_string(t)) == 101 &&
                client.receive_frame().opcode == 1;
      }
    });
  for (std::thread& thread : threads) thread.join();
  done = true;
  sender.join();
  CHECK(fine == 80);
  CHECK(TestClient(server.listener->port()).get("/hello").status == 200);
}
