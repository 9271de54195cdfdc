#include "distorch/cli/devices_report.h"

namespace distorch::cli {

using graph::Json;

Json as_json(const std::vector<device::DeviceInfo>& devices,
             const std::optional<device::LinkTable>& links) {
  Json result;
  result["devices"] = Json::array();
  for (const auto& info : devices)
    result["devices"].push_back({{"name", info.name},
                                 {"kind", info.kind},
                                 {"description", info.description},
                                 {"total_bytes", info.total_bytes},
                                 {"free_bytes", info.free_bytes}});
  result["links"] = Json::array();
  if (!links) return result;
  for (const auto& link : links->links)
    result["links"].push_back({{"from", link.from},
                               {"to", link.to},
                               {"GBps", link.gbps},
                               {"pageable_GBps", link.pageable_gbps},
                               {"latency_s", link.latency_s}});
  result["cpu_memory_GBps"] = links->cpu_memory_gbps;
  if (links->disk_gbps) result["disk_GBps"] = *links->disk_gbps;
  return result;
}

}  // namespace distorch::cli
