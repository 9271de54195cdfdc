#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace distorch::device {

/// One device of this machine. Memory in bytes, as the system reports it at the time of the call.
struct DeviceInfo {
  std::string name;         // as ATen spells it: "cuda:0", "cpu", "sim:0"
  std::string kind;         // "cuda", "cpu", "sim"
  std::string description;  // for people: "NVIDIA H200", "AMD EPYC, 2 threads, bf16"
  std::int64_t total_bytes = 0;
  std::int64_t free_bytes = 0;
  bool accelerator = false;  // has streams and memory of its own
  bool fast_bf16 = false;    // has bf16 instructions; a CPU without them computes in float32
  int threads = 0;           // CPUs only
};

/// Every device present, accelerators first (cuda, then sim), "cpu" last. Loads libtorch_cuda the
/// first time where an NVIDIA driver is present.
std::vector<DeviceInfo> list_devices();

/// The device of that name among list_devices(). Error(Usage) that names what there is.
DeviceInfo find_device(const std::string& name);

/// The first accelerator, else "cpu".
std::string default_device();

/// "cuda:0", "cpu", "sim:1" and also "cuda" (index 0) as torch's device. Checks the spelling, not
/// the presence. (c10::Device("sim:0") itself works only after sim::install.) Error(Usage) for
/// anything else.
c10::Device to_torch(const std::string& name);

/// "cuda:0", "cpu", "sim:1": the one spelling used in distorch.
std::string name_of(c10::Device device);

/// Whether the device runs the kernels of a CPU, which gains nothing from more at once, likes what
/// fits into its caches and does not need images channels-last: the CPU, and the simulated device
/// of a dry run that plans for it. Layers that take another path on a CPU ask this.
bool computes_as_cpu(c10::Device device);

struct Resolved {
  std::map<std::string, std::string> mapping;  // every requested name -> a present one
  std::vector<std::string> warnings;  // one for each that was replaced without being asked for
};

/// Which present device stands for each requested one. `device_map` (from --device-map
/// cuda:1=cuda:0) comes first and silently; a present name stands for itself; else an absent
/// accelerator is replaced by the present one with the same index, then by the first accelerator,
/// then by "cpu", with a warning that says which replaced which. With `strict` an absent name is
/// Error(Usage) that lists what there is; so is a device map whose right side is absent, strict or
/// not.
Resolved resolve_devices(const std::vector<std::string>& requested,
                         const std::vector<std::string>& present,
                         const std::map<std::string, std::string>& device_map, bool strict);

/// Reads "cuda:1=cuda:0" entries into a device map. Error(Usage) quoting the entry.
std::map<std::string, std::string> parse_device_map(const std::vector<std::string>& entries);

}  // namespace distorch::device
