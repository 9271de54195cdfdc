#include "distorch/server/run_messages.h"

#include <doctest/doctest.h>
#include <spdlog/logger.h>

#include <algorithm>

#include "distorch/media/sent_picture.h"
#include "distorch/server/preview_frame.h"
#include "distorch/server/sockets.h"
#include "tests/server/fake_runner.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::server;

namespace {

graph::Preview shown(graph::Value value) {
  return {"p", {.node_id = "3", .display_node_id = "3", .real_node_id = "3"}, std::move(value)};
}

/// The frames that a client gets of one preview and the step that follows it: event and payload.
std::vector<testing::Sent> frames(const graph::Value& value, PreviewRules rules, Json features) {
  testing::FakeMessages messages;
  messages.features = std::move(features);
  Metrics metrics;
  RunMessages run(messages, metrics, "p", "me", rules);
  run.send(shown(value));
  run.send(graph::Progress{"p", "3", 0, 1});
  std::vector<testing::Sent> found;
  for (auto& sent : messages.sent())
    if (sent.type[0] == '#') found.push_back(std::move(sent));
  return found;
}

const Json kKnowing = {{"supports_preview_metadata", true}};

}  // namespace

TEST_CASE("run messages: a text that a node shows is a frame of kind 3") {
  auto sent = frames(graph::Value::constant("gr\xc3\xbc\xc3\x9f"), {}, Json::object());
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].type == "#3");
  CHECK(sent[0].payload == std::string("\0\0\0\1", 4) + "3gr\xc3\xbc\xc3\x9f");
  CHECK(frames(graph::Value::constant(5), {}, Json::object()).empty());
}

TEST_CASE("run messages: pictures that are results go whole, as PNG, to every client") {
  auto value = graph::Value::of("PREVIEW", media::SentPicture{media::blank_image(8, 4, 3)});
  PreviewRules rules{.side = 2, .to_all = false};
  auto plain = frames(value, rules, Json::object());
  REQUIRE(plain.size() == 1);
  CHECK(plain[0].type == "#1");
  CHECK(plain[0].payload.substr(0, 8) == std::string("\0\0\0\2\x89PNG", 8));
  CHECK(plain[0].payload.substr(20, 8) == std::string("\0\0\0\x08\0\0\0\x04", 8));
  auto known = frames(value, rules, kKnowing);
  REQUIRE(known.size() == 1);
  CHECK(known[0].type == "#4");
  CHECK(known[0].payload.find(R"("image_type":"image/png"})") != std::string::npos);
}

TEST_CASE("run messages: previews only to clients that know them, unless all shall have them") {
  auto value = graph::Value::of("PREVIEW", media::blank_image(8, 4, 3));
  CHECK(frames(value, {.side = 8, .to_all = false}, Json::object()).empty());
  CHECK(frames(value, {.side = 8, .to_all = false}, kKnowing).size() == 1);
  CHECK(frames(value, {.side = 8, .to_all = true}, Json::object()).size() == 1);
}

TEST_CASE("run messages: of a prompt without a client the job is told, and all of its end") {
  testing::FakeMessages messages;
  Metrics metrics;
  auto value = graph::Value::of("PREVIEW", media::blank_image(8, 4, 3));
  RunMessages run(messages, metrics, "p", "", {});
  run.send(graph::Executing{"p", "3", "3"});
  run.send(shown(value));  // nobody watches: no picture is made
  run.send(graph::Progress{"p", "3", 0, 1});
  messages.features = kKnowing;
  run.send(shown(value));
  run.send(graph::ExecutionInterrupted{.prompt_id = "p"});
  std::vector<std::string> told;
  for (const auto& sent : messages.sent()) told.push_back(sent.client + ": " + sent.type);
  CHECK(told == std::vector<std::string>{"p: executing", "p: progress", "p: #4",
                                         ": execution_interrupted"});
  CHECK(run.client().empty());
}

TEST_CASE("run messages: a prompt that asks for previews gets them") {
  test::TemporaryFolder folder("asked_previews");
  struct Server {
    explicit Server(const std::filesystem::path& file)
        : prompts(runner, messages, {.store = {.file = file}, .previews = {.to_all = false}}) {}
    testing::FakeRunner runner;
    testing::FakeMessages messages;
    Prompts prompts;
  } server(folder.path() / "jobs.sqlite");
  server.prompts.worker.start();
  auto frames_of = [&](const std::string& method, int seed) {
    server.messages.clear();
    Job job;
    job.id = std::to_string(seed);
    job.prompt = {{"9", {{"class_type", "Draw"}, {"inputs", {{"seed", seed}}}}}};
    job.outputs = {"9"};
    job.number = seed;
    job.extra_data = {{"client_id", "me"}, {"preview_method", method}};
    server.prompts.queue.put(std::move(job));
    REQUIRE(testing::eventually([&] { return server.prompts.queue.remaining() == 0; }));
    auto seen = server.messages.seen_by("me");
    return std::count(seen.begin(), seen.end(), "#1");
  };
  CHECK(frames_of("default", 1) == 0);
  CHECK(frames_of("latent2rgb", 2) == 2);
}

TEST_CASE("greeting: who goes gets no lines of the log any more") {
  test::TemporaryFolder folder("greeting");
  testing::FakeRunner runner;
  testing::FakeMessages messages;
  Prompts prompts(runner, messages, {.store = {.file = folder.path() / "jobs.sqlite"}});
  LogFeed log(messages);
  Greeting greeting(prompts, &log);
  log.subscribe("gone");
  log.subscribe("here");
  greeting.on_close("gone");
  spdlog::logger("test", log.sink()).info("a line");
  auto got_line = [&](const char* client) {
    for (const auto& sent : messages.sent())
      if (sent.type == "logs" && sent.client == client) return true;
    return false;
  };
  REQUIRE(testing::eventually([&] { return got_line("here"); }));
  CHECK_FALSE(got_line("gone"));
}

TEST_CASE("sockets: pictures as JPEG may be left out for a slow client, as PNG not") {
  struct Link final : SocketLink {
    void push(const Frame& frame) override { previews.push_back(frame.preview); }
    std::vector<std::uint32_t> previews;
  };
  Sockets sockets(Json::object());
  auto link = std::make_shared<Link>();
  sockets.opened("me", link);
  auto event = shown({});
  for (bool png : {false, true}) {
    EncodedPreview picture{png, "bytes"};
    sockets.send_binary("me", kPreviewFrame, preview_payload(picture));
    sockets.send_binary("me", kPreviewWithMetadataFrame, preview_payload(picture, event));
  }
  sockets.send_binary("me", kTextFrame, text_payload("3", "text"));
  CHECK(link->previews == std::vector<std::uint32_t>{1, 4, 0, 0, 0});
}
