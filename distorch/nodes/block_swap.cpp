#include "distorch/nodes/block_swap.h"

#include <fmt/format.h>

#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/placement/placement.h"

namespace distorch::nodes {

std::string expert_string(const std::string& compute, const std::string& device,
                          std::int64_t bytes) {
  return fmt::format("{},*;{},{}b", compute, device, bytes);
}

std::string allocation_of(const streaming::StreamedModel& weights, const SwappedLayers& layers,
                          const streaming::Engine& engine) {
  const auto& compute = weights.options().compute;
  if (placement::kind_of(compute) == placement::DeviceKind::Host) {
    log::info("{}: computes on {}, where its layers rest anyway; none is swapped",
              weights.options().name, compute);
    return "";
  }
  if (layers.blocks.empty()) return "";
  std::int64_t bytes = 0;
  for (int block : layers.blocks) bytes += weights.file_bytes(block);
  auto device = engine.machine().device_for(layers.device);
  if (device == compute) device = "cpu";
  log::info("{}: {} of {} layers ({:.2f} GB) rest on {} and stream to {} in every step",
            weights.options().name, layers.count, layers.of, static_cast<double>(bytes) / GB,
            device, compute);
  return expert_string(compute, device, bytes);
}

}  // namespace distorch::nodes
