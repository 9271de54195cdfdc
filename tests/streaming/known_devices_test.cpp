#include "distorch/streaming/known_devices.h"

#include <doctest/doctest.h>

#include "distorch/base/link_clock.h"
#include "distorch/base/units.h"

using namespace distorch;
using namespace distorch::streaming;

namespace {

std::int64_t gib(double count) { return static_cast<std::int64_t>(count * GiB); }

}  // namespace

TEST_CASE("default budget of an accelerator: what others leave, less half a GiB") {
  device::DeviceInfo info;
  info.accelerator = true;
  info.total_bytes = gib(24);
  device::MemoryUse use;
  use.free = gib(20);
  CHECK(default_budget(info, use) == gib(19.5));
  // What this process holds, in tensors or in its cache, it may use again.
  use.free = gib(8);
  use.in_use = gib(10);
  use.reserved = gib(12);
  CHECK(default_budget(info, use) == gib(19.5));
  use.free = gib(24);
  CHECK(default_budget(info, use) == gib(23.5));
  use = {};
  CHECK(default_budget(info, use) == 0);
}

TEST_CASE("default budget: memory of this process that others manage is not ours") {
  device::DeviceInfo info;
  info.accelerator = true;
  info.total_bytes = gib(24);
  device::MemoryUse use;
  use.free = gib(8);
  use.reserved = gib(12);
  CHECK(default_budget(info, use, gib(5)) == gib(14.5));
  CHECK(default_budget(info, use, gib(50)) == gib(7.5));
}

TEST_CASE("default budget of the CPU: pages of mapped files are counted once") {
  device::DeviceInfo info;
  info.total_bytes = gib(32);
  info.free_bytes = gib(20);  // what the system calls available: with all clean pages of files
  device::MemoryUse use;
  use.in_use = gib(10);  // the resident set: 8 GiB of it are pages of the model's file
  use.own = gib(2);
  CHECK(default_budget(info, use) == gib(21));
  use.own = gib(14);
  CHECK(default_budget(info, use) == gib(31));
}

TEST_CASE("links: what comes from the disk takes of the way that RAM has to an accelerator") {
  device::DeviceInfo host, card;
  host.name = "cpu";
  card.name = "cuda:0";
  card.accelerator = true;
  device::LinkTable measured;
  measured.links = {{"cpu", "cuda:0", 20, 10, 1e-5}};
  measured.disk_gbps = 5;
  placement::System system;
  add_links(system, {host, card}, &measured, nullptr);
  LinkClock clock(system.links, system.roots);
  const int from_disk = clock.route("disk", "cuda:0"), from_ram = clock.route("cpu", "cuda:0");
  REQUIRE(from_disk >= 0);
  CHECK(clock.bytes_per_s(from_disk) == doctest::Approx(5e9));
  const auto both = clock.at_once({from_disk, from_ram});
  CHECK(both[0] + both[1] == doctest::Approx(20e9));
}
