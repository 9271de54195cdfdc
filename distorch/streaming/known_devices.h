#pragma once
#include "distorch/base/rig.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/device/memory.h"
#include "distorch/placement/placement.h"

namespace distorch::streaming {

/// How kinds of operations usually depart from a GPU's peaks: the same for all cards.
KernelSpeeds typical_kernels();

/// Speeds of a real device for predictions: of a table of well-known cards, else a cautious guess
/// from its kind.
RigDevice known_speeds(const device::DeviceInfo& info);

/// What of a device weights and activations may use when the user set no budget: what other
/// programs leave, less a reserve for the driver and fragmentation. `foreign_bytes`: memory of this
/// process that is not ours to use.
std::int64_t default_budget(const device::DeviceInfo& info, const device::MemoryUse& use,
                            std::int64_t foreign_bytes = 0);

/// Links between the devices of a system: measured ones first, then those of the rig that sim
/// devices imitate, else common speeds of each kind of link.
void add_links(placement::System& system, const std::vector<device::DeviceInfo>& devices,
               const device::LinkTable* measured, const Rig* rig);

}  // namespace distorch::streaming
