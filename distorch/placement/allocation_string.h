#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::placement {

enum class Unit { Bytes, ModelPercent, DeviceFraction };

/// One entry of an allocation: how much of a model rests on a device.
struct Share {
  std::string device;  // as ATen spells it: "cuda:0", "cpu"; "disk" is the file, not held in RAM
  Unit unit = Unit::Bytes;
  double amount = 0;        // bytes | 0..100 of the model | 0..1 of the device
  bool takes_rest = false;  // '*'; the amount then means nothing
  bool operator==(const Share&) const = default;
};

/// "cuda" -> "cuda:0", " CPU " -> "cpu", "sim:1" stays. Error(Usage) for an empty or malformed
/// name.
std::string normal_device(std::string_view name);

/// Reads "cuda:0,2.5gb;cpu,*": entries keep their order, one unit per string. Units: b, k, m, g, t
/// with or without "b" (powers of 1024) | % | none (share of the device's memory). Throws
/// Error(Usage) that quotes the entry: unknown unit, mixed units, negative, not finite, a share of
/// a device above 1, two wildcards, a device twice, an empty device, an empty string.
std::vector<Share> parse_allocation(std::string_view text);

/// `EXPERT#COMPUTE;VIRTUAL_GB;DONOR1,DONOR2`: either side of '#' may be empty.
struct Allocation {
  std::vector<Share> shares;        // the expert side; wins when it is not empty
  std::string compute;              // "" = the caller's compute device
  double virtual_bytes = 0;         // VIRTUAL_GB counts 2^30
  std::vector<std::string> donors;  // in the order they give memory
  bool operator==(const Allocation&) const = default;
};

/// Reads the full form; a text without '#' is an expert string alone. Throws as parse_allocation
/// does.
Allocation parse_full_allocation(std::string_view text);

}  // namespace distorch::placement
