#include "distorch/base/rig.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/base/units.h"

using namespace distorch;

namespace {

const char* kGood = R"(
name: two
devices:
  - {name: "cuda:0", label: A, memory: 24GiB, tflops: {float32: 35.6, default: 71}, memory_bandwidth_GBps: 936, launch_us: 5}
  - {name: cpu, memory: 64g}
roots: [{name: pcie, GBps: 12}]
links: [{from: cpu, to: "cuda:0", GBps: 6.8, latency_us: 10, duplex: half, root: pcie}]
)";

// The good text with one piece replaced.
std::string with(std::string_view piece, std::string_view by) {
  std::string text = kGood;
  auto at = text.find(piece);
  REQUIRE(at != std::string::npos);
  return text.replace(at, piece.size(), by);
}

}  // namespace

TEST_CASE("rig: units become bytes, seconds, bytes per second") {
  Rig rig = parse_rig(kGood, "two.yaml");
  const RigDevice& gpu = *rig.find("cuda:0");
  CHECK(gpu.memory_bytes == static_cast<std::int64_t>(24 * GiB));
  CHECK(gpu.flops("float32") == doctest::Approx(35.6e12));
  CHECK(gpu.flops("bfloat16") == doctest::Approx(71e12));
  CHECK(gpu.memory_bytes_per_s == doctest::Approx(936e9));
  CHECK(gpu.launch_s == doctest::Approx(5e-6));
  CHECK(rig.find("cpu")->flops("float32") == 0);
  REQUIRE(rig.links.size() == 1);
  CHECK(rig.links[0].bytes_per_s == doctest::Approx(6.8e9));
  CHECK(rig.links[0].latency_s == doctest::Approx(1e-5));
  CHECK_FALSE(rig.links[0].full_duplex);
  CHECK(rig.roots[0].bytes_per_s == doctest::Approx(12e9));
  CHECK(rig.find("cuda:1") == nullptr);
}

TEST_CASE("rig: every fault names its entry and what was expected") {
  auto message = [](const std::string& text) {
    try {
      parse_rig(text, "r.yaml");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Usage);
      return std::string(error.what());
    }
    return std::string("read without a word");
  };
  CHECK(message(with("to: \"cuda:0\"", "to: \"cuda:1\"")) ==
        "r.yaml: link 1: joins 'cuda:1', but the devices are cuda:0, cpu");
  CHECK(message(with("GBps: 6.8", "GBps: -1")) ==
        "r.yaml: link 1: 'GBps' must be a number above 0, not '-1'");
  CHECK(message(with("GBps: 6.8", "GBps: fast")) ==
        "r.yaml: link 1: 'GBps' must be a number above 0, not 'fast'");
  CHECK(message(with("GBps: 6.8", "GBps: .nan")) ==
        "r.yaml: link 1: 'GBps' must be a number above 0, not '.nan'");
  CHECK(message(with("duplex: half", "duplex: both")) ==
        "r.yaml: link 1: 'duplex' is full or half, not 'both'");
  CHECK(message(with("root: pcie", "root: x")) ==
        "r.yaml: link 1: names the root 'x', which is not under 'roots'");
  CHECK(message(with("memory: 64g", "ram: 64g")) ==
        "r.yaml: device 2: does not know 'ram'; it may have name, label, memory, tflops, "
        "memory_bandwidth_GBps, launch_us");
  CHECK(message(with("name: cpu", "name: \"cuda:0\"")) ==
        "r.yaml: device 2: 'cuda:0' is there twice");
  CHECK(message(with("memory: 64g", "label: x")) == "r.yaml: device 2: needs 'memory'");
  CHECK(message("name: x") == "r.yaml: lists no devices");
  CHECK(message("[1, 2").find("is not YAML") != std::string::npos);
  CHECK(message("just a word").find("must be a list of 'key: value'") != std::string::npos);
}

TEST_CASE("rig: all that ship can be read, and every link reaches the first card") {
  int count = 0;
  for (auto& file :
       std::filesystem::directory_iterator(std::filesystem::path(DISTORCH_SOURCE_DIR) / "rigs")) {
    if (file.path().extension() != ".yaml") continue;
    CAPTURE(file.path().string());
    Rig rig = read_rig(file.path());
    LinkClock clock(rig.links, rig.roots);
    for (const RigDevice& device : rig.devices) {
      if (device.name != "cuda:0") CHECK(clock.route(device.name, "cuda:0") >= 0);
    }
    ++count;
  }
  CHECK(count >= 9);
}
