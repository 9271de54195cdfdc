#include "distorch/server/object_info_routes.h"

#include <atomic>
#include <thread>

#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

namespace {

/// Counts how often its list of choices is read.
struct Types : NodeChoices {
  Types() {
    graph::NodeType loader;
    loader.name = "Loader";
    loader.inputs = {graph::choice("file", [this] {
      ++reads;
      return files;
    })};
    loader.run = [](graph::Call&) {};
    catalog.add(std::move(loader));
    graph::NodeType broken;
    broken.name = "Broken";
    broken.inputs = {graph::choice("file", []() -> std::vector<std::string> {
      throw Error(ErrorKind::MissingFile, "disk", "is gone");
    })};
    broken.run = [](graph::Call&) {};
    catalog.add(std::move(broken));
    add_object_info_routes(router, routes);
  }
  std::string state() const override { return now; }

  std::vector<std::string> files = {"a"};
  std::string now = "1";
  std::atomic<int> reads = 0;
  graph::Catalog catalog;
  ObjectInfoState routes{catalog, *this};
  Router router;
};

}  // namespace

TEST_CASE("object_info: every definition that can be built") {
  Types server;
  auto all = json_of(get(server.router, "/api/object_info"));
  CHECK(all.size() == 1);
  CHECK(all["Loader"]["name"] == "Loader");
  CHECK(all["Loader"]["input"]["required"]["file"][0] == Json::array({"a"}));
  CHECK(header_of(get(server.router, "/object_info"), "Content-Type") ==
        "application/json; charset=utf-8");
}

TEST_CASE("object_info: made once, and again when the choices changed") {
  Types server;
  auto first = get(server.router, "/object_info").body;
  auto reads = server.reads.load();
  CHECK(get(server.router, "/object_info").body == first);
  CHECK(server.reads == reads);
  server.files = {"a", "new"};
  server.now = "2";
  CHECK(get(server.router, "/object_info").body.find("\"new\"") != std::string::npos);
  CHECK(server.reads > reads);
}

TEST_CASE("object_info: many that ask at once wait for one text") {
  Types server;
  get(server.router, "/object_info");
  int one = server.reads;
  server.now = "2";
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { get(server.router, "/object_info"); });
  for (auto& thread : threads) thread.join();
  CHECK(server.reads == 2 * one);
}

TEST_CASE("object_info: one class, or an empty object") {
  Types server;
  CHECK(json_of(get(server.router, "/object_info/Loader"))["Loader"]["name"] == "Loader");
  CHECK(json_of(get(server.router, "/api/object_info/Nope")).dump() == "{}");
}
