#pragma once
#include <optional>
#include <vector>

#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/graph/value.h"

namespace distorch::cli {

/// Devices with their memory in bytes, and the links between them where they were measured.
graph::Json as_json(const std::vector<device::DeviceInfo>& devices,
                    const std::optional<device::LinkTable>& links);

}  // namespace distorch::cli
