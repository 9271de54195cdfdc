#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/placement/plan.h"

namespace distorch::streaming {

enum class PlacementMode { Auto, Spread, Tail };

/// Memory of this process that is managed elsewhere: where distorch is a part of another program.
/// Either may be empty. They must not call the engine.
struct ForeignMemory {
  /// Bytes of a device that are not the engine's to use.
  std::function<std::int64_t(const std::string& device)> held_bytes;
  /// Frees about so many bytes of a device; false where it freed none.
  std::function<bool(const std::string& device, std::int64_t bytes)> free;
};

struct EngineOptions {
  std::string default_device;                   // "" = the first accelerator, else cpu
  std::map<std::string, std::int64_t> budgets;  // --memory cuda:0=10GiB
  PlacementMode mode = PlacementMode::Auto;     // --placement: Tail is DisTorch2's order
  // --placement "cuda:0,2gb;cpu,*" for every model; "" = as the loader says
  std::string override_allocation;
  std::map<std::string, std::string> device_map;  // --device-map
  bool strict_devices = false;
  bool log_tables = true;
  std::optional<Rig> rig;  // the machine that sim devices imitate
  bool plan_only = false;  // plan for `rig` (or this machine), load and run nothing
  ForeignMemory foreign;
};

/// The devices that models are planned for: those of this machine, of a rig that simulated ones
/// imitate, or of a rig that is only planned for. Never changes; for any thread.
class Machine {
 public:
  /// Error(Usage) for a budget of a device that is not there, or beyond what it has.
  explicit Machine(EngineOptions options);

  const EngineOptions& options() const { return options_; }
  std::vector<device::DeviceInfo> devices() const;
  /// One of them. Error(Usage) that names what there is.
  device::DeviceInfo describe(const std::string& device) const;
  /// The present device that stands for a requested one ("" = default), warning once where it was
  /// replaced.
  std::string device_for(const std::string& requested) const;
  /// Speeds of a device for profiles: of the rig, of a known accelerator, or a cautious guess.
  RigDevice speeds(const std::string& device) const;
  /// As planners see it, with `compute` to compute on and budgets applied.
  placement::System system(const std::string& compute) const;
  /// An allocation string with every device replaced by the one that stands for it here; what is
  /// asked of devices that one stands for adds up. `compute` computes.
  placement::Allocation allocation(const std::string& text, const std::string& compute) const;

 private:
  EngineOptions options_;
  std::optional<device::LinkTable> links_;
};

}  // namespace distorch::streaming
