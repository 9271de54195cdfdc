#pragma once
#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <vector>

#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/recording.h"

// The interface behind which every kind of device stands: for device/ only.
namespace distorch::device {

class Kind {
 public:
  virtual ~Kind() = default;
  virtual c10::DeviceType type() const = 0;
  /// The devices of this kind that are present; none when the kind is absent. Never throws for
  /// absence.
  virtual std::vector<DeviceInfo> list() = 0;
  virtual MemoryUse memory(int index) = 0;
  virtual void reset_peak(int index) = 0;
  virtual void empty_cache() = 0;
  virtual void limit_memory(int index, std::int64_t bytes) = 0;
  /// Why the memory could not be registered, or nothing when it was.
  virtual std::optional<std::string> register_host(void* start, std::int64_t bytes,
                                                   bool read_only) = 0;
  virtual void unregister_host(void* start) noexcept = 0;
  /// See recording.h. Null: this kind has nothing of the sort.
  virtual std::unique_ptr<Recording> record(int index, const std::function<at::Tensor()>& body,
                                            const Recording* beside) {
    return nullptr;
  }
};

// One per file: cuda.cpp, sim/kind.cpp, cpu.cpp.
Kind& cuda_kind();
Kind& sim_kind();
Kind& cpu_kind();

/// All kinds, accelerators first.
const std::vector<Kind*>& kinds();
Kind& kind_of(c10::DeviceType type);

}  // namespace distorch::device
