#include "distorch/streaming/machine.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/memory.h"
#include "distorch/streaming/known_devices.h"

namespace distorch::streaming {

using placement::DeviceKind;

namespace {

device::DeviceInfo info_of(const RigDevice& described) {
  device::DeviceInfo info;
  info.name = described.name;
  info.kind = described.name.substr(0, described.name.find(':'));
  info.description = described.label;
  info.total_bytes = info.free_bytes = described.memory_bytes;
  info.accelerator = placement::kind_of(described.name) == DeviceKind::Accelerator;
  info.fast_bf16 = true;
  return info;
}

}  // namespace

Machine::Machine(EngineOptions options) : options_(std::move(options)) {
  // torch looks for its CUDA half once, at the first operation that might want it: be there before.
  device::list_devices();
  links_ = device::load_links(device::default_link_file());
  for (const auto& [name, bytes] : options_.budgets) {
    if (name == "disk") continue;
    auto info = describe(name);
    if (bytes > info.total_bytes)
      throw Error(ErrorKind::Usage, "--memory " + name,
                  fmt::format("asks for {}, the device has {}", human_bytes(bytes),
                              human_bytes(info.total_bytes)));
    if (info.accelerator && !options_.plan_only)
      device::limit_memory(device::to_torch(name), bytes);
  }
}

std::vector<device::DeviceInfo> Machine::devices() const {
  if (!options_.plan_only || !options_.rig) {
    auto present = device::list_devices();
    // Who imitates a machine wants no other accelerators beside it.
    if (options_.rig)
      std::erase_if(present,
                    [](const auto& info) { return info.accelerator && info.kind != "sim"; });
    return present;
  }
  std::vector<device::DeviceInfo> infos;
  for (const auto& described : options_.rig->devices)
    if (placement::kind_of(described.name) != DeviceKind::Disk) infos.push_back(info_of(described));
  std::stable_partition(infos.begin(), infos.end(),
                        [](const auto& info) { return info.accelerator; });
  return infos;
}

device::DeviceInfo Machine::describe(const std::string& device) const {
  std::string present;
  for (const auto& info : devices()) {
    if (info.name == device) return info;
    present += (present.empty() ? "" : ", ") + info.name;
  }
  throw Error(ErrorKind::Usage, device, "is not a device here; there is " + present);
}

std::string Machine::device_for(const std::string& requested) const {
  auto infos = devices();
  if (requested.empty())
    return options_.default_device.empty() ? infos.front().name : options_.default_device;
  std::vector<std::string> present;
  for (const auto& info : infos) present.push_back(info.name);
  auto name = placement::normal_device(requested);
  if (name == "disk") return name;
  auto resolved =
      device::resolve_devices({name}, present, options_.device_map, options_.strict_devices);
  for (const auto& warning : resolved.warnings) log::warn_once(warning);
  return resolved.mapping.at(name);
}

RigDevice Machine::speeds(const std::string& device) const {
  auto info = describe(device);
  if (options_.plan_only && options_.rig) return *options_.rig->find(device);
  if (info.kind == "sim" && options_.rig) {
    // The N-th accelerator of the rig is sim:N.
    int index = device::to_torch(device).index();
    for (const auto& described : options_.rig->devices)
      if (placement::kind_of(described.name) == DeviceKind::Accelerator && index-- == 0)
        return described;
  }
  return known_speeds(info);
}

placement::System Machine::system(const std::string& compute) const {
  placement::System system;
  auto devices = this->devices();
  for (const auto& info : devices) {
    placement::Device device{info.name, info.total_bytes, info.total_bytes};
    auto budget = options_.budgets.find(info.name);
    const bool real = info.kind != "sim" && !options_.plan_only;
    if (budget != options_.budgets.end()) {
      // An allocator rounds up, and its memory has holes.
      constexpr std::int64_t lost = 128;
      const bool rounds = real && info.accelerator;
      device.budget_bytes = budget->second - (rounds ? budget->second / lost : 0);
    } else if (real) {
      device.budget_bytes =
          default_budget(info, device::memory_use(device::to_torch(info.name)),
                         options_.foreign.held_bytes ? options_.foreign.held_bytes(info.name) : 0);
    }
    system.devices.push_back(device);
  }
  system.devices.push_back({"disk", std::int64_t{1} << 50, std::int64_t{1} << 50});
  add_links(system, devices, links_ ? &*links_ : nullptr, options_.rig ? &*options_.rig : nullptr);
  system.compute = system.at(compute);
  return system;
}

placement::Allocation Machine::allocation(const std::string& text,
                                          const std::string& compute) const {
  auto allocation = placement::parse_full_allocation(text);
  allocation.compute = compute;
  std::vector<placement::Share> shares;
  for (auto share : allocation.shares) {
    share.device = device_for(share.device);
    auto same = std::find_if(shares.begin(), shares.end(),
                             [&](const auto& other) { return other.device == share.device; });
    if (same == shares.end()) {
      shares.push_back(share);
    } else {
      same->amount += share.amount;
      same->takes_rest = same->takes_rest || share.takes_rest;
    }
  }
  allocation.shares = std::move(shares);
  std::vector<std::string> donors;
  for (const auto& donor : allocation.donors) {
    auto name = device_for(donor);
    if (name != compute && std::find(donors.begin(), donors.end(), name) == donors.end())
      donors.push_back(name);
  }
  allocation.donors = std::move(donors);
  if (allocation.shares.empty() && allocation.donors.empty()) allocation.virtual_bytes = 0;
  return allocation;
}

}  // namespace distorch::streaming
