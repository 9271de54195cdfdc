#include "distorch/server/settings_routes.h"

#include <thread>

#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

namespace {

struct SettingsServer {
  explicit SettingsServer(const std::filesystem::path& folder, bool several = false)
      : users(folder, several), state(users) {
    add_settings_routes(router, state);
  }
  Users users;
  SettingsState state;
  Router router;
};

}  // namespace

TEST_CASE("settings: set one by one and together, and there after a restart") {
  TemporaryFolder folder("settings");
  {
    SettingsServer server(folder);
    CHECK(json_of(get(server.router, "/settings")).dump() == "{}");
    CHECK(json_of(get(server.router, "/settings/Comfy.Theme")).is_null());
    // The page sends them as text/plain.
    auto answer = post(server.router, "/api/settings/Comfy.Theme", "\"dark\"",
                       {{"content-type", "text/plain;charset=UTF-8"}});
    CHECK(answer.status == 200);
    CHECK(answer.body.empty());
    CHECK(post(server.router, "/settings", R"({"b":{"c":[1,2.5,null]},"a":18446744073709551615})")
              .status == 200);
    CHECK(post(server.router, "/settings/b", "false").status == 200);
    CHECK(post(server.router, "/settings/a%2Fb", "1").status == 200);
  }
  SettingsServer server(folder);
  CHECK(json_of(get(server.router, "/api/settings")).dump() ==
        R"({"Comfy.Theme":"dark","b":false,"a":18446744073709551615,"a/b":1})");
  CHECK(json_of(get(server.router, "/settings/Comfy.Theme")) == "dark");
  CHECK(json_of(get(server.router, "/settings/a%2Fb")) == 1);
}

TEST_CASE("settings: bad bodies change nothing") {
  TemporaryFolder folder("settings_bad");
  SettingsServer server(folder);
  post(server.router, "/settings/a", "1");
  for (const char* body : {"", "{", "[1]", "7", "\"x\""})
    CHECK_MESSAGE(post(server.router, "/settings", body).status == 400, body);
  CHECK(post(server.router, "/settings/a", "nonsense").status == 400);
  CHECK(json_of(get(server.router, "/settings")).dump() == R"({"a":1})");
}

TEST_CASE("settings: a broken file counts as none and is put aside, not lost") {
  TemporaryFolder folder("settings_broken");
  auto file = folder.path() / "default" / "comfy.settings.json";
  write(file, "{\"a\":");
  SettingsServer server(folder);
  CHECK(json_of(get(server.router, "/settings")).dump() == "{}");
  CHECK(read_file(file) == "{\"a\":");
  CHECK(post(server.router, "/settings/b", "2").status == 200);
  CHECK(json_of(get(server.router, "/settings")).dump() == R"({"b":2})");
  CHECK(read_file(file.string() + ".broken") == "{\"a\":");
}

TEST_CASE("settings: a burst of changes from many threads keeps each of them") {
  TemporaryFolder folder("settings_burst");
  SettingsServer server(folder);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int j = 0; j < 10; ++j)
        post(server.router, "/settings/" + std::to_string(i) + "." + std::to_string(j), "1");
    });
  for (auto& thread : threads) thread.join();
  CHECK(json_of(get(server.router, "/settings")).size() == 80);
}

TEST_CASE("settings: of several users each has their own; nobody's are refused") {
  TemporaryFolder folder("settings_users");
  SettingsServer server(folder, true);
  auto a = server.users.add("a"), b = server.users.add("b");
  CHECK(post(server.router, "/settings/x", "1", {{"comfy-user", a}}).status == 200);
  CHECK(json_of(get(server.router, "/settings", {{"comfy-user", b}})).dump() == "{}");
  CHECK(get(server.router, "/settings", {{"comfy-user", "c"}}).status == 401);
  CHECK(post(server.router, "/settings/x", "1", {{"comfy-user", "__x"}}).status == 401);
}
