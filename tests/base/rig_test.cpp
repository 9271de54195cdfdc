#include "distorch/base/rig.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "tests/support/source_dir.h"

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

TEST_CASE("rig: what is not said about operations leaves the plain rule") {
  const RigDevice plain = *parse_rig(kGood, "two.yaml").find("cuda:0");
  CHECK(plain.issue_s == 0);
  for (auto kind : kKernelKinds) {
    // 936 kB take 1 us; 71 MFLOP take 1 us in any dtype but float32.
    CHECK(seconds_of(plain, {kind, "bfloat16", 936e3, 0, 0}) == doctest::Approx(6e-6));
    CHECK(seconds_of(plain, {kind, "bfloat16", 936e3, 213e6, 64}) == doctest::Approx(8e-6));
    CHECK(seconds_of(plain, {kind, "float32", 0, 35.6e6, 64}) == doctest::Approx(6e-6));
  }
  const RigDevice cpu = *parse_rig(kGood, "two.yaml").find("cpu");
  CHECK(seconds_of(cpu, {KernelKind::Matmul, "float32", 1e9, 1e9, 64}) == 0);
}

TEST_CASE("rig: kinds of operations depart from the plain rule, each on its own") {
  const auto text =
      with("launch_us: 5",
           "launch_us: 5, issue_us: 8, operations: {convolution: {compute: 0.5, memory: 0.25, "
           "start_us: 9}, attention: {half_depth: 40}, elementwise: {start_us: 0}}");
  const RigDevice gpu = *parse_rig(text, "two.yaml").find("cuda:0");
  CHECK(gpu.issue_s == doctest::Approx(8e-6));
  const auto us = [&](KernelKind kind, double bytes, double flops, double depth) {
    return seconds_of(gpu, {kind, "bfloat16", bytes, flops, depth}) * 1e6;
  };
  CHECK(us(KernelKind::Convolution, 936e3, 0, 0) == doctest::Approx(9 + 4));
  CHECK(us(KernelKind::Convolution, 936e3, 355e6, 9) == doctest::Approx(9 + 10));
  CHECK(us(KernelKind::Attention, 0, 71e6, 40) == doctest::Approx(5 + 2));
  CHECK(us(KernelKind::Attention, 0, 71e6, 120) == doctest::Approx(5 + 4.0 / 3));
  CHECK(us(KernelKind::Elementwise, 936e3, 0, 0) == doctest::Approx(1));
  CHECK(us(KernelKind::Matmul, 936e3, 142e6, 40) == doctest::Approx(5 + 2));
}

TEST_CASE("rig: the text of a machine is read back as the same machine") {
  auto text = with("launch_us: 5",
                   "launch_us: 5, issue_us: 8, operations: {convolution: {compute: 0.5, memory: "
                   "0.25, half_depth: 30, start_us: 0}, matmul: {memory: 1.5}}");
  text.replace(text.find("label: A"), 8, "label: 'A \"B\" \\'");
  const Rig rig = parse_rig(text, "two.yaml"), again = parse_rig(rig_text(rig), "again.yaml");
  CHECK(again.name == rig.name);
  REQUIRE(again.devices.size() == rig.devices.size());
  for (std::size_t i = 0; i < rig.devices.size(); ++i) {
    const auto &a = rig.devices[i], &b = again.devices[i];
    CHECK(b.name == a.name);
    CHECK(b.label == a.label);
    CHECK(b.memory_bytes == a.memory_bytes);
    CHECK(b.tflops == a.tflops);
    CHECK(b.memory_bytes_per_s == a.memory_bytes_per_s);
    CHECK(b.launch_s == a.launch_s);
    CHECK(b.issue_s == a.issue_s);
    CHECK(b.kernels == a.kernels);
  }
  CHECK(rig.devices[0].label == "A \"B\" \\");
  REQUIRE(again.links.size() == 1);
  CHECK(again.links[0].from == "cpu");
  CHECK(again.links[0].to == "cuda:0");
  CHECK(again.links[0].bytes_per_s == rig.links[0].bytes_per_s);
  CHECK(again.links[0].latency_s == rig.links[0].latency_s);
  CHECK_FALSE(again.links[0].full_duplex);
  CHECK(again.links[0].root == "pcie");
  REQUIRE(again.roots.size() == 1);
  CHECK(again.roots[0].bytes_per_s == rig.roots[0].bytes_per_s);
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
        "memory_bandwidth_GBps, launch_us, issue_us, operations");
  CHECK(message(with("launch_us: 5", "launch_us: 5, operations: {matmul: {compute: 0}}")) ==
        "r.yaml: device 1: operations: matmul: 'compute' must be a number above 0, not '0'");
  CHECK(message(with("launch_us: 5", "launch_us: 5, operations: {conv: {compute: 1}}")) ==
        "r.yaml: device 1: operations: does not know 'conv'; it may have matmul, convolution, "
        "attention, normalization, elementwise");
  CHECK(message(with("launch_us: 5", "launch_us: 5, operations: {matmul: {speed: 1}}")) ==
        "r.yaml: device 1: operations: matmul: does not know 'speed'; it may have compute, memory, "
        "half_depth, start_us");
  CHECK(message(with("launch_us: 5", "launch_us: 5, operations: {matmul: fast}"))
            .find("matmul: must be a list of 'key: value'") != std::string::npos);
  CHECK(message(with("launch_us: 5", "launch_us: 5, issue_us: -1")) ==
        "r.yaml: device 1: 'issue_us' must be a number of 0 or more, not '-1'");
  CHECK(message(with("name: cpu", "name: \"cuda:0\"")) ==
        "r.yaml: device 2: 'cuda:0' is there twice");
  CHECK(message(with("memory: 64g", "label: x")) == "r.yaml: device 2: needs 'memory'");
  CHECK(message("name: x") == "r.yaml: lists no devices");
  CHECK(message("[1, 2").find("is not YAML") != std::string::npos);
  CHECK(message("just a word").find("must be a list of 'key: value'") != std::string::npos);
}

TEST_CASE("rig: all that ship can be read, and every link reaches the first card") {
  int count = 0;
  for (auto& file : std::filesystem::directory_iterator(test::source_dir() / "rigs")) {
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
