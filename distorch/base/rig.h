#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/base/link_clock.h"

namespace distorch {

/// A device of a described machine.
struct RigDevice {
  std::string name;               // "cuda:0", "sim:0", "cpu", "disk"
  std::string label;              // "RTX 3090": for people, may be empty
  std::int64_t memory_bytes = 0;  // all of it
  std::map<std::string, double>
      tflops;  // by dtype as torch spells it ("bfloat16"), dense matmul, 10^12 per s
  double memory_bytes_per_s = 0;
  double launch_s = 0;  // cost of starting one operation

  /// FLOP/s in that dtype; the entry "default" stands in for one that is not listed; 0 where the
  /// device cannot compute.
  double flops(std::string_view dtype) const;
};

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

}  // namespace distorch
