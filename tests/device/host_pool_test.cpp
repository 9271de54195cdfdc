#include "distorch/device/host_pool.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

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
