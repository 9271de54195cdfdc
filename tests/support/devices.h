#pragma once
#include <ATen/Context.h>
#include <c10/core/Device.h>

#include <cstdlib>
#include <string>

#include "distorch/base/rig.h"
#include "distorch/device/device.h"
#include "distorch/device/sim/sim.h"

/// Devices for tests. Test cases named "any device: ..." take theirs from here, so that they run on
/// a real one too: DISTORCH_TEST_DEVICE=cuda:0 ctest -L gpu
namespace distorch::test {

inline constexpr std::int64_t kMiB = std::int64_t{1} << 20;

/// A machine of `accelerators` equal devices with round figures: 1 TFLOP/s in any dtype, 100 GB/s
/// memory, no launch cost, links of 10 GB/s to the CPU and from disk, 5 GB/s between devices 0 and
/// 1, no latency.
inline Rig small_rig(int accelerators = 2, std::int64_t memory_bytes = 256 * kMiB) {
  Rig rig;
  rig.name = "small";
  for (int i = 0; i < accelerators; ++i) {
    RigDevice device;
    device.name = "sim:" + std::to_string(i);
    device.memory_bytes = memory_bytes;
    device.tflops["default"] = 1;
    device.memory_bytes_per_s = 100e9;
    rig.devices.push_back(device);
    LinkSpec link;
    link.from = "cpu";
    link.to = device.name;
    link.bytes_per_s = 10e9;
    rig.links.push_back(link);
  }
  for (const auto* name : {"cpu", "disk"}) {
    RigDevice host;
    host.name = name;
    host.memory_bytes = std::int64_t{64} << 30;
    rig.devices.push_back(host);
  }
  LinkSpec disk;
  disk.from = "disk";
  disk.to = "cpu";
  disk.bytes_per_s = 10e9;
  rig.links.push_back(disk);
  if (accelerators > 1) {
    LinkSpec peer;
    peer.from = "sim:0";
    peer.to = "sim:1";
    peer.bytes_per_s = 5e9;
    rig.links.push_back(peer);
  }
  return rig;
}

/// The device that DISTORCH_TEST_DEVICE names, else `otherwise`. Installs a small rig where it is
/// simulated and none is installed yet.
inline std::string test_device_or(const std::string& otherwise) {
  const char* wanted = std::getenv("DISTORCH_TEST_DEVICE");
  std::string name = wanted && *wanted ? wanted : otherwise;
  if (name.rfind("sim", 0) == 0 && !sim::installed()) sim::install(small_rig());
  if (name.rfind("cuda", 0) == 0) {
    device::list_devices();                        // loads torch's CUDA half
    at::globalContext().setAllowTF32CuDNN(false);  // float32 is compared with the CPU's
  }
  return name;
}

inline std::string test_device_name() { return test_device_or("sim:0"); }

inline c10::Device test_device() { return device::to_torch(test_device_name()); }

}  // namespace distorch::test
