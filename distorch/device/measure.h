#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace distorch::device {

/// One direction between two devices, from measured copies. GB = 10^9 bytes.
struct LinkSpeed {
  std::string from, to;      // "cpu", "cuda:0", ...
  double gbps = 0;           // page-locked or registered host memory; device to device otherwise
  double pageable_gbps = 0;  // ordinary host memory; 0 between accelerators
  double latency_s = 0;      // time of a copy of a few bytes
};

struct LinkTable {
  std::string machine;  // the devices it was measured on: a table of other hardware is not used
  std::vector<LinkSpeed> links;
  double cpu_memory_gbps = 0;  // read + write of a large copy in RAM
  // sequential read of a file, page cache bypassed where the system lets us
  std::optional<double> disk_gbps;

  /// The row from -> to, or nothing.
  const LinkSpeed* find(const std::string& from, const std::string& to) const;
};

struct MeasureOptions {
  std::int64_t bytes = std::int64_t{256} << 20;  // size of one copy
  int repeats = 3;                               // the best counts
  std::filesystem::path disk_file;               // empty: the disk is not measured
};

/// Times real copies between the host and each accelerator and between each two accelerators of
/// list_devices(). On the simulated accelerator the times are those of the virtual clock.
LinkTable measure(const MeasureOptions& options = {});

/// Sequential read speed of a file in GB/s, at most `limit_bytes` of it. Error(MissingFile).
double measure_file_read(const std::filesystem::path& file, std::int64_t limit_bytes);

/// "links.json" under $XDG_CACHE_HOME/distorch, else ~/.cache/distorch.
std::filesystem::path default_link_file();
void save(const LinkTable& table, const std::filesystem::path& path);
/// Nothing when the file is missing, damaged, or of a machine with other devices than
/// list_devices() names now.
std::optional<LinkTable> load_links(const std::filesystem::path& path);

/// What identifies this machine in a LinkTable: its devices and their descriptions.
std::string machine_id();

}  // namespace distorch::device
