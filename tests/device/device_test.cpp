#include "distorch/device/device.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/names.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

TEST_CASE(
    "devices: the CPU is always there, last, with real figures; the simulated ones come first") {
  sim::install(test::small_rig(2));
  const auto all = list_devices();
  REQUIRE(all.size() >= 3);
  CHECK(all.back().name == "cpu");
  CHECK(all.back().total_bytes > 0);
  CHECK(all.back().free_bytes > 0);
  CHECK(all.back().free_bytes <= all.back().total_bytes);
  CHECK(all.back().threads > 0);
  CHECK_FALSE(all.back().accelerator);
  CHECK(find_device("sim:1").total_bytes == 256 * test::kMiB);
  CHECK(find_device("sim").name == "sim:0");
  CHECK(default_device() == all.front().name);
  CHECK_THROWS_WITH_AS(find_device("sim:7"), doctest::Contains("sim:0, sim:1, cpu"), Error);
}

TEST_CASE("devices: their names alone, whichever are installed") {
  for (int count : {2, 1}) {
    sim::install(test::small_rig(count));
    std::vector<std::string> names;
    for (const auto& device : list_devices())
      if (device.accelerator) names.push_back(device.name);
    CHECK(accelerator_names() == names);
    CHECK(names.back() == "sim:" + std::to_string(count - 1));
  }
}

TEST_CASE("devices: the resident set of the process is the CPU's memory in use") {
  const auto before = memory_use(c10::kCPU).in_use;
  std::vector<char> much(std::size_t{64} << 20, 1);
  const auto after = memory_use(c10::kCPU);
  CHECK(after.in_use - before > (60 << 20));
  CHECK(after.peak >= after.in_use);
  CHECK(much[12345] == 1);
}

TEST_CASE("devices: names") {
  CHECK(to_torch("cuda:3") == c10::Device(c10::kCUDA, 3));
  CHECK(to_torch("cuda") == c10::Device(c10::kCUDA, 0));
  CHECK(to_torch("cpu") == c10::Device(c10::kCPU));
  CHECK(to_torch("sim:1") == c10::Device(c10::DeviceType::PrivateUse1, 1));
  for (const char* name : {"cuda:3", "cpu", "sim:1"}) CHECK(name_of(to_torch(name)) == name);
  for (const char* name :
       {"", "gpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda:1000", "cpu:1", ":0"})
    CHECK_THROWS_AS(to_torch(name), Error);
}

TEST_CASE("devices: substitution says which replaced which") {
  const std::vector<std::string> one{"cuda:0", "cpu"}, none{"cpu"},
      simulated{"sim:0", "sim:1", "cpu"};
  auto r = resolve_devices({"cuda:0", "cpu", "cuda:1"}, one, {}, false);
  CHECK(r.mapping == std::map<std::string, std::string>{
                         {"cuda:0", "cuda:0"}, {"cpu", "cpu"}, {"cuda:1", "cuda:0"}});
  REQUIRE(r.warnings.size() == 1);
  CHECK(r.warnings[0] == "cuda:1 is not on this machine; cuda:0 is used in its place");

  r = resolve_devices({"cuda:0", "cuda:1"}, none, {}, false);
  CHECK(r.mapping == std::map<std::string, std::string>{{"cuda:0", "cpu"}, {"cuda:1", "cpu"}});
  CHECK(r.warnings.size() == 2);

  r = resolve_devices({"cuda:1", "cuda:4", "xpu:0"}, simulated, {},
                      false);  // same index first, then the first
  CHECK(r.mapping["cuda:1"] == "sim:1");
  CHECK(r.mapping["cuda:4"] == "sim:0");
  CHECK(r.mapping["xpu:0"] == "sim:0");

  r = resolve_devices({"cuda:1", "cuda:1"}, one, parse_device_map({"cuda:1=cpu"}), true);
  CHECK(r.mapping["cuda:1"] == "cpu");
  CHECK(r.warnings.empty());
}

TEST_CASE("devices: strict names and bad maps are refused") {
  const std::vector<std::string> one{"cuda:0", "cpu"};
  CHECK_THROWS_WITH_AS(resolve_devices({"cuda:1"}, one, {}, true), doctest::Contains("cuda:0, cpu"),
                       Error);
  CHECK_NOTHROW(resolve_devices({"cuda"}, one, {}, true));
  CHECK_THROWS_WITH_AS(resolve_devices({}, one, {{"cuda:1", "cuda:2"}}, false),
                       doctest::Contains("there is no cuda:2"), Error);
  for (const char* entry : {"cuda:1", "=cpu", "cuda:1=", "cuda:1=gpu", "cuda:x=cpu"})
    CHECK_THROWS_WITH_AS(parse_device_map({entry}), doctest::Contains(""), Error);
}
