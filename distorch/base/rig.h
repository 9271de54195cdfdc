#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/base/link_clock.h"

namespace distorch {

/// Kinds of operations that a device runs at different shares of its peaks. Normalization is group
/// norm, layer norm and softmax; Elementwise is everything else.
enum class KernelKind { Matmul, Convolution, Attention, Normalization, Elementwise };
inline constexpr std::array kKernelKinds{KernelKind::Matmul, KernelKind::Convolution,
                                         KernelKind::Attention, KernelKind::Normalization,
                                         KernelKind::Elementwise};
/// "matmul", "convolution", ... as rig files spell it.
const char* kind_name(KernelKind kind);
std::optional<KernelKind> kind_of_name(std::string_view name);  // nothing for any other word

/// How operations of one kind depart from the plain rule, which is
/// max(bytes / memory_bytes_per_s, flops / flops(dtype)) + launch_s.
struct KernelSpeed {
  double compute = 1;  // share of flops(dtype) that is reached
  double memory = 1;   // share of memory_bytes_per_s that is reached; above 1 where caches help
  /// Length of the sums (KernelWork::depth) at which only half of `compute` is reached; 0: the
  /// length does not matter.
  double half_depth = 0;
  std::optional<double> start_s;  // in place of launch_s
  bool operator==(const KernelSpeed&) const = default;
};

using KernelSpeeds = std::array<KernelSpeed, kKernelKinds.size()>;  // by KernelKind

/// Work of one operation on a device.
struct KernelWork {
  KernelKind kind = KernelKind::Elementwise;
  std::string dtype = "default";  // as in RigDevice::tflops; decides the FLOP/s
  double bytes = 0;               // read and written in the device's memory
  double flops = 0;
  // products in one sum: inner size of a matmul, channels x window of a convolution, head width of
  // attention; 0 where there are none
  double depth = 0;
  bool operator==(const KernelWork&) const = default;
};

/// A device of a described machine.
struct RigDevice {
  std::string name;               // "cuda:0", "sim:0", "cpu", "disk"
  std::string label;              // "RTX 3090": for people, may be empty
  std::int64_t memory_bytes = 0;  // all of it
  /// By dtype as torch spells it ("bfloat16"): dense matmul, 10^12 per s.
  std::map<std::string, double, std::less<>> tflops;
  double memory_bytes_per_s = 0;
  double launch_s = 0;  // cost of starting one operation
  double issue_s = 0;   // host time to issue one operation; 0: the host is never late
  KernelSpeeds kernels;

  KernelSpeed& speed(KernelKind kind) { return kernels[static_cast<std::size_t>(kind)]; }
  const KernelSpeed& speed(KernelKind kind) const {
    return kernels[static_cast<std::size_t>(kind)];
  }
  /// FLOP/s in that dtype; the entry "default" stands in for one that is not listed; 0 where the
  /// device cannot compute.
  double flops(std::string_view dtype) const;
};

/// Seconds that an operation occupies the device. The one cost model: of the simulated accelerator,
/// of profiles, and of calibration. A speed that is 0 (not stated) costs nothing.
double seconds_of(const RigDevice& device, const KernelWork& work);

/// A described machine: what `distorch plan --rig FILE` plans for and what the simulated
/// accelerator imitates.
struct Rig {
  std::string name;
  std::vector<RigDevice> devices;
  std::vector<LinkSpec> links;
  std::vector<RootSpec> roots;

  const RigDevice* find(std::string_view device) const;  // null where it has none of that name
};

/// Reads the YAML described in rigs/README.md. `where` names the text in messages.
/// Throws Error(Usage) that names the entry and what was expected: unknown key, missing or
/// non-positive number, link between devices that are not listed, unknown root, the same device
/// twice.
Rig parse_rig(const std::string& text, const std::string& where);
/// The same from a file; Error(MissingFile) where it is not there.
Rig read_rig(const std::filesystem::path& file);
/// The text that parse_rig() reads back as the same machine, with four digits of every number.
std::string rig_text(const Rig& rig);

}  // namespace distorch
