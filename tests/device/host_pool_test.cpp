#include "distorch/device/host_pool.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"

using distorch::device::HostPool;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::size_t present_bytes(const void* start, std::size_t bytes) {
  auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<std::uintptr_t>(start) / page * page;
  std::vector<unsigned char> pages(bytes / page);
  if (::mincore(reinterpret_cast<void*>(begin), pages.size() * page, pages.data()) != 0) return 0;
  std::size_t count = 0;
  for (auto state : pages) count += state & 1;
  return count * page;
}

}  // namespace

TEST_CASE("host pool: blocks are aligned, apart from each other, and their own") {
  HostPool pool({.range_bytes = 256 * kMiB});
  std::mt19937 random(7);
  std::vector<std::pair<unsigned char*, std::size_t>> blocks;
  for (int i = 0; i < 2000; ++i) {
    if (blocks.size() > 20 || (!blocks.empty() && random() % 3 == 0)) {
      auto at = random() % blocks.size();
      auto [block, bytes] = blocks[at];
      auto mark = block[0];
      CHECK(block[bytes - 1] == mark);
      CHECK(block[bytes / 2] == mark);
      pool.give_back(block);
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(at));
      continue;
    }
    auto bytes = 1 + random() % (4 * kMiB);
    auto* block = static_cast<unsigned char*>(pool.take(bytes));
    REQUIRE(block);
    CHECK(pool.owns(block));
    CHECK(reinterpret_cast<std::uintptr_t>(block) % 64 == 0);
    auto mark = static_cast<unsigned char>(random());
    block[0] = block[bytes / 2] = block[bytes - 1] = mark;
    blocks.emplace_back(block, bytes);
  }
}

TEST_CASE("host pool: holes close, and the lowest one is used again") {
  HostPool pool({.range_bytes = 64 * kMiB});
  auto *a = pool.take(10 * kMiB), *b = pool.take(10 * kMiB), *c = pool.take(10 * kMiB);
  auto reach = pool.reach();
  pool.give_back(a);
  pool.give_back(b);
  CHECK(pool.take(20 * kMiB) == a);
  CHECK(pool.reach() == reach);
  CHECK(pool.take(40 * kMiB) == nullptr);
  pool.give_back(c);
  pool.give_back(a);
  CHECK(pool.take(63 * kMiB) == a);
}

TEST_CASE("host pool: the end of the range goes back to the system beyond what may be kept") {
  HostPool pool({.range_bytes = 64 * kMiB, .kept_bytes = 8 * kMiB});
  auto* block = static_cast<char*>(pool.take(48 * kMiB));
  std::memset(block, 1, 48 * kMiB);
  CHECK(present_bytes(block, 48 * kMiB) == 48 * kMiB);
  pool.give_back(block);
  CHECK(pool.reach() <= 10 * kMiB);
  CHECK(present_bytes(block, 48 * kMiB) <= 12 * kMiB);
  auto* again = static_cast<char*>(pool.take(48 * kMiB));
  CHECK(again == block);
  CHECK(again[47 * kMiB] == 0);
}

TEST_CASE("host pool: without a range it has no room and owns nothing") {
  HostPool pool({.range_bytes = std::size_t{1} << 62});
  int other = 0;
  CHECK(pool.take(1) == nullptr);
  CHECK_FALSE(pool.owns(&other));
}

TEST_CASE("host pool: it does not grow beyond what the machine can give") {
  std::int64_t room = 40 * kMiB;
  int asked = 0;
  HostPool pool({.range_bytes = 512 * kMiB, .kept_bytes = 0, .room = [&] {
                   ++asked;
                   return room;
                 }});
  const auto refused = [&](std::size_t bytes) {
    try {
      pool.take(bytes);
    } catch (const distorch::Error& error) {
      CHECK(error.kind() == distorch::ErrorKind::OutOfMemory);
      CHECK(distorch::device::is_out_of_memory(error));
      return true;
    }
    return false;
  };
  auto* first = static_cast<char*>(pool.take(20 * kMiB));
  REQUIRE(first);
  // Not touched yet: the system still counts its memory as free, the pool does not.
  CHECK(refused(30 * kMiB));
  const auto reach = pool.reach();
  std::memset(first, 1, 20 * kMiB);
  room -= 20 * kMiB;  // now the system knows
  CHECK(refused(30 * kMiB));
  CHECK(pool.reach() == reach);
  auto* second = pool.take(15 * kMiB);
  CHECK(second);
  // Memory that it holds is given out again without asking.
  pool.give_back(first);
  const auto before = asked;
  CHECK(pool.take(20 * kMiB) == first);
  CHECK(asked == before);
  // After an error it works on, and uses what others have freed.
  room = 400 * kMiB;
  CHECK(pool.take(300 * kMiB));
}

TEST_CASE("host pool: the system is not asked for every block") {
  int asked = 0;
  HostPool pool({.range_bytes = 1024 * kMiB, .room = [&] {
                   ++asked;
                   return std::int64_t{8} << 30;
                 }});
  for (int i = 0; i < 1000; ++i) pool.take(kMiB / 2);
  CHECK(asked > 0);
  CHECK(asked < 10);
}

TEST_CASE("host room: there is some, and no more than the machine has") {
  const auto room = distorch::device::host_room();
  const auto pages = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES));
  CHECK(room > 0);
  // Swap may come on top, but not so much of it.
  CHECK(room < 4 * pages * static_cast<std::int64_t>(::sysconf(_SC_PAGESIZE)));
}
