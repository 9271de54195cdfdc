#include "distorch/device/sim/backend.h"

#include <ATen/detail/PrivateUse1HooksInterface.h>

#include <mutex>

namespace distorch::sim {
namespace {

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex index) const override { return index < device_count(); }
  bool isPinnedPtr(const void* data) const override { return is_registered(data, 1); }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(device_count());
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return static_cast<c10::DeviceIndex>(thread_state().device);
  }
  void resizePrivateUse1Bytes(const c10::Storage&, size_t) const override {
    TORCH_CHECK(false, "storages of the simulated accelerator are not resized on their own");
  }
};

}  // namespace

void register_hooks() {
  static auto* hooks = new Hooks;  // torch keeps it until the process ends
  at::RegisterPrivateUse1HooksInterface(hooks);
}

void register_backend() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::register_privateuse1_backend("sim");
    register_allocator();
    register_guard();
    register_hooks();
    // Libraries take their operations back when they are destroyed: these live as long as the
    // process.
    auto* all = new torch::Library(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1,
                                   __FILE__, __LINE__);
    register_fallback(*all);
    auto* aten = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1,
                                    __FILE__, __LINE__);
    register_views(*aten);
    register_copies(*aten);
    register_kernels(*aten);
  });
}

}  // namespace distorch::sim
