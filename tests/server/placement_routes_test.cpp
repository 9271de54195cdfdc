#include "distorch/server/placement_routes.h"

#include "distorch/server/system_routes.h"
#include "tests/server/ask.h"
#include "tests/server/fake_messages.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;

namespace {

struct Placements {
  Placements() { add_placement_routes(router, feed); }
  Response subscribe(const Json& body) {
    return post(router, "/api/distorch/placement/subscribe", body.dump());
  }

  FakeMessages messages;
  int asked = 0;
  PlacementFeed feed{messages, [this] { return Json{{"asked", ++asked}}; }};
  Router router;
};

}  // namespace

TEST_CASE("placement: told to those who asked, and to nobody else") {
  Placements server;
  CHECK(json_of(get(server.router, "/distorch/placement"))["asked"] == 1);
  server.feed.send();
  CHECK(server.asked == 1);  // nobody listens, so nothing is put together
  CHECK(!server.feed.is_watched());
  CHECK(json_of(server.subscribe({{"client_id", "a"}, {"enabled", true}}))["asked"] == 2);
  server.subscribe({{"client_id", "b"}});
  server.subscribe({{"client_id", "a"}});
  CHECK(server.feed.is_watched());
  server.feed.send();
  auto sent = server.messages.sent();
  REQUIRE(sent.size() == 2);
  CHECK(sent[0].client == "b");
  CHECK(sent[1].client == "a");
  CHECK(sent[0].type == "distorch_placement");
  CHECK(sent[0].data == sent[1].data);
  server.subscribe({{"client_id", "a"}, {"enabled", false}});
  server.subscribe({{"client_id", "b"}, {"enabled", false}});
  CHECK(!server.feed.is_watched());
}

TEST_CASE("placement: of very many clients the newest are kept, and mistakes are named") {
  Placements server;
  for (int i = 0; i < 1500; ++i) server.feed.subscribe("client " + std::to_string(i));
  server.feed.send();
  CHECK(server.messages.sent().size() == 1000);
  CHECK(server.messages.sent().back().client == "client 1499");
  for (const Json& body : {Json::array(), Json{{"client_id", 5}}, Json{{"client_id", ""}},
                           Json{{"client_id", "a"}, {"enabled", "yes"}}, Json::object()})
    CHECK(server.subscribe(body).status == 400);
}

TEST_CASE("placement: the panel's script is listed for the page and can be had") {
  Placements server;
  REQUIRE(own_scripts().size() == 1);
  auto script = get(server.router, own_scripts()[0]);
  CHECK(script.status == 200);
  CHECK(header_of(script, "Content-Type").starts_with("text/javascript"));
  CHECK(header_of(script, "ETag").size() == 34);
  CHECK(script.body.find("registerExtension") != std::string::npos);
  CHECK(get(server.router, "/extensions/distorch/other.js").status == 404);
}
