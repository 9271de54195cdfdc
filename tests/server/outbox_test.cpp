#include "distorch/server/outbox.h"

#include <doctest/doctest.h>

using namespace distorch::server;

namespace {

Frame frame(std::string bytes, std::uint32_t preview = 0) {
  return {.bytes = std::make_shared<const std::string>(std::move(bytes)),
          .is_text = preview == 0,
          .preview = preview};
}

std::string all_of(Outbox& outbox) {
  std::string result;
  while (auto next = outbox.pop()) result += *next->bytes + " ";
  return result;
}

}  // namespace

TEST_CASE("outbox: order stays, of previews of one kind only the newest waits") {
  Outbox outbox;
  CHECK(outbox.push(frame("a")));
  CHECK(outbox.push(frame("p1", 4)));
  CHECK(outbox.push(frame("q1", 1)));
  CHECK(outbox.push(frame("b")));
  CHECK(outbox.push(frame("p2", 4)));
  CHECK(outbox.bytes() == 6);
  CHECK(all_of(outbox) == "a q1 b p2 ");
  CHECK(outbox.bytes() == 0);
}

TEST_CASE("outbox: a slow client loses previews first, then it is given up") {
  Outbox outbox({.bytes = 10, .frames = 100});
  CHECK(outbox.push(frame("texts")));
  CHECK(outbox.push(frame("pppp", 1)));
  CHECK(outbox.push(frame("more")));
  CHECK(all_of(outbox) == "texts more ");
  CHECK(outbox.push(frame("0123456789")));
  CHECK_FALSE(outbox.push(frame("x")));
  Outbox many({.bytes = 100, .frames = 2});
  CHECK(many.push(frame("a")));
  CHECK(many.push(frame("b")));
  CHECK_FALSE(many.push(frame("c")));
}

TEST_CASE("outbox: a preview larger than all room is left out") {
  Outbox outbox({.bytes = 10, .frames = 100});
  CHECK(outbox.push(frame("a")));
  CHECK(outbox.push(frame("a preview of many bytes", 4)));
  CHECK(all_of(outbox) == "a ");
}
