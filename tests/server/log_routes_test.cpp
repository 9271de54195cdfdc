#include "distorch/server/log_routes.h"

#include <spdlog/logger.h>

#include "tests/server/ask.h"
#include "tests/server/fake_messages.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

namespace {

struct LogServer {
  explicit LogServer(std::size_t capacity = 1000) : feed(messages, capacity) {
    add_log_routes(router, state);
  }
  int subscribe(const std::string& body) {
    return ask(router, Method::Patch, "/internal/logs/subscribe", body).status;
  }
  /// All texts that were sent to a client, one behind the other.
  static std::string texts(const std::vector<FakeMessages::Sent>& sent, const std::string& client) {
    std::string all;
    for (const auto& message : sent)
      if (message.client == client && message.type == "logs")
        for (const auto& entry : message.data["entries"]) all += entry["m"].get<std::string>();
    return all;
  }

  FakeMessages messages;
  LogFeed feed;
  LogState state{feed};
  Router router;
  spdlog::logger logger{"test", feed.sink()};
};

}  // namespace

TEST_CASE("log: the newest lines, as text and one by one") {
  LogServer server(3);
  for (int i = 1; i <= 5; ++i) server.logger.info("line {}", i);
  auto raw = json_of(get(server.router, "/internal/logs/raw"));
  REQUIRE(raw["entries"].size() == 3);
  CHECK(raw["entries"][0]["m"] == "[info] line 3\n");
  CHECK(raw["entries"][0]["t"].get<std::string>().size() == 26);
  CHECK(raw["entries"][0]["t"].get<std::string>()[10] == 'T');
  CHECK(raw["size"]["cols"].get<int>() > 0);
  auto text = json_of(get(server.router, "/internal/logs")).get<std::string>();
  CHECK(text.find(" - [info] line 4\n") != std::string::npos);
  CHECK(text.find("line 2") == std::string::npos);
  CHECK(get(server.router, "/api/internal/logs").status == 404);
}

TEST_CASE("log: bytes that are no text, and very long lines") {
  LogServer server;
  server.logger.warn("\xff{}", std::string(100'000, 'x'));
  auto raw = json_of(get(server.router, "/internal/logs/raw"));
  CHECK(raw["entries"][0]["m"].get<std::string>().size() < 9000);
}

TEST_CASE("log: new lines go to subscribers, each once and in order") {
  LogServer server;
  server.logger.info("before");
  CHECK(server.subscribe(R"({"enabled":true,"clientId":"a"})") == 200);
  CHECK(server.subscribe(R"({"enabled":true,"clientId":"b"})") == 200);
  std::string wanted;
  for (int i = 0; i < 40; ++i) {
    server.logger.info("{}", i);
    wanted += "[info] " + std::to_string(i) + "\n";
  }
  auto all = [&](const std::string& client) {
    return server.messages.wait([&](const auto& sent) {
      auto texts = LogServer::texts(sent, client);
      return texts.size() >= wanted.size() && texts.substr(texts.size() - wanted.size()) == wanted;
    });
  };
  CHECK(all("a"));
  CHECK(all("b"));
  CHECK(server.subscribe(R"({"enabled":false,"clientId":"a"})") == 200);
  server.feed.unsubscribe("b");
  CHECK(server.subscribe(R"({"enabled":true,"clientId":"c"})") == 200);
  server.logger.info("after");
  CHECK(server.messages.wait([](const auto& sent) {
    return LogServer::texts(sent, "c").find("after") != std::string::npos;
  }));
  CHECK(LogServer::texts(server.messages.sent(), "a").find("after") == std::string::npos);
  CHECK(LogServer::texts(server.messages.sent(), "b").find("after") == std::string::npos);
}

TEST_CASE("log: of very many subscribers the newest are kept") {
  LogServer server;
  for (int i = 0; i <= 1000; ++i) server.feed.subscribe("client " + std::to_string(i));
  server.logger.info("hello");
  CHECK(server.messages.wait([](const auto& sent) { return sent.size() >= 1000; }));
  auto sent = server.messages.sent();
  CHECK(LogServer::texts(sent, "client 0").empty());
  CHECK(LogServer::texts(sent, "client 1") == "[info] hello\n");
  CHECK(LogServer::texts(sent, "client 1000") == "[info] hello\n");
}

TEST_CASE("log: a bad subscription is refused") {
  LogServer server;
  for (const char* body : {"", "{}", "[]", R"({"enabled":1,"clientId":"a"})",
                           R"({"enabled":true,"clientId":7})", R"({"enabled":true,"clientId":""})"})
    CHECK_MESSAGE(server.subscribe(body) == 400, body);
}

TEST_CASE("log: the sink may outlive the feed") {
  FakeMessages messages;
  std::shared_ptr<spdlog::sinks::sink> sink;
  {
    LogFeed feed(messages);
    sink = feed.sink();
  }
  spdlog::logger("late", sink).info("still here");
}
