#include "distorch/device/measure.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "distorch/base/error.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;
using doctest::Approx;

TEST_CASE(
    "measure: the simulated links come out as the rig describes them; the table survives the "
    "disk") {
  auto rig = test::small_rig(2);
  for (auto& link : rig.links) link.latency_s = 1e-5;
  sim::install(rig);
  const auto folder =
      std::filesystem::temp_directory_path() / ("distorch_measure_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "data") << std::string(1 << 20, 'x');
  const auto table = measure({.bytes = 8 << 20, .repeats = 2, .disk_file = folder / "data"});
  REQUIRE(table.find("cpu", "sim:0"));
  CHECK(table.find("cpu", "sim:0")->gbps == Approx(10).epsilon(0.01));
  CHECK(table.find("sim:1", "cpu")->gbps == Approx(10).epsilon(0.01));
  CHECK(table.find("cpu", "sim:0")->pageable_gbps == Approx(1.6).epsilon(0.02));
  CHECK(table.find("cpu", "sim:0")->latency_s == Approx(1e-5).epsilon(0.01));
  CHECK(table.find("sim:0", "sim:1")->gbps == Approx(5).epsilon(0.01));
  CHECK_FALSE(table.find("cpu", "cpu"));
  CHECK(table.cpu_memory_gbps > 0.1);
  REQUIRE(table.disk_gbps);
  CHECK(*table.disk_gbps > 0);

  const auto path = folder / "new" / "links.json";
  save(table, path);
  const auto read = load_links(path);
  REQUIRE(read);
  CHECK(read->links.size() == table.links.size());
  CHECK(read->find("sim:0", "sim:1")->gbps == table.find("sim:0", "sim:1")->gbps);
  sim::install(test::small_rig(1));
  CHECK_FALSE(load_links(path));  // another machine
  std::ofstream(path) << "{ not json";
  CHECK_FALSE(load_links(path));
  CHECK_FALSE(load_links(folder / "missing.json"));
  CHECK_THROWS_AS(measure_file_read(folder / "missing", 1000), Error);
  std::filesystem::remove_all(folder);
}
