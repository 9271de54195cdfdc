#include "distorch/server/job_queue.h"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::server;

TEST_CASE("job queue: clients hear of a prompt before a worker that waits begins with it") {
  test::TemporaryFolder folder("job_queue");
  Store store({.file = folder.path() / "jobs.sqlite"});
  JobQueue queue(store, 10);
  bool began_before = true;
  int changes = 0;
  queue.on_change([&](std::size_t remaining) {
    CHECK(remaining == 1);
    if (changes++ > 0) return;
    // Time enough for a worker that was woken already.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    began_before = queue.snapshot().running != nullptr;
  });
  std::thread worker([&] { CHECK(queue.take()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Job job;
  job.id = "a";
  queue.put(std::move(job));
  worker.join();
  CHECK_FALSE(began_before);
  CHECK(changes == 2);
}
