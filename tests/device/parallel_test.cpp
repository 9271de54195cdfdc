#include "distorch/device/parallel.h"

#include <ATen/Parallel.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using distorch::device::parallel_for;

namespace {

using Part = std::pair<std::int64_t, std::int64_t>;

/// The number of torch's threads while it lives.
struct Threads {
  explicit Threads(int count) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before); }
  int before = at::get_num_threads();
};

/// What one loop was cut into, in order, and how many threads had a part.
struct Cut {
  std::vector<Part> parts;
  std::set<std::thread::id> threads;
};

Cut cut(std::int64_t begin, std::int64_t end, std::int64_t grain) {
  Cut found;
  std::mutex mutex;
  parallel_for(begin, end, grain, [&](std::int64_t first, std::int64_t last) {
    std::lock_guard lock(mutex);
    found.parts.emplace_back(first, last);
    found.threads.insert(std::this_thread::get_id());
  });
  std::sort(found.parts.begin(), found.parts.end());
  return found;
}

}  // namespace

TEST_CASE("the parts of a parallel loop are the whole of it, each on a thread of its own") {
  const Threads three(3);
  const auto found = cut(5, 17, 1);
#ifdef __clang__  // builds without OpenMP
  CHECK(found.parts == std::vector<Part>{{5, 17}});
#else
  CHECK(found.parts == std::vector<Part>{{5, 9}, {9, 13}, {13, 17}});
  CHECK(found.threads.size() == 3);
#endif
  CHECK(cut(5, 5, 1).parts.empty());
  CHECK(cut(0, 1, 1).parts == std::vector<Part>{{0, 1}});
}

TEST_CASE("a parallel loop with too little to do for two threads stays in one piece") {
  const Threads three(3);
  const auto found = cut(0, 12, 12);
  CHECK(found.parts == std::vector<Part>{{0, 12}});
  CHECK(found.threads == std::set{std::this_thread::get_id()});
}

TEST_CASE("a parallel loop within a parallel loop has one thread, its caller's") {
  const Threads three(3);
  std::atomic<int> others = 0;
  parallel_for(0, 3, 1, [&](std::int64_t, std::int64_t) {
    const auto inner = cut(0, 8, 1);
    if (inner.threads != std::set{std::this_thread::get_id()}) ++others;
  });
#ifndef __clang__
  CHECK(others == 0);
#endif
}

TEST_CASE("an error of one part reaches the caller after all have ended, and the next loop works") {
  const Threads three(3);
  std::atomic<int> begun = 0, ended = 0;
  CHECK_THROWS_WITH_AS(parallel_for(0, 3, 1,
                                    [&](std::int64_t first, std::int64_t) {
                                      ++begun;
                                      if (first == 0) throw std::runtime_error("the first part");
                                      ++ended;
                                    }),
                       "the first part", std::runtime_error);
  CHECK(begun == ended + 1);
  CHECK(cut(0, 3, 1).parts.back().second == 3);
}
