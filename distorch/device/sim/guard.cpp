#include <c10/core/DeviceCapability.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "distorch/device/sim/backend.h"

// Devices, streams and events of the simulator in the shape that c10's generic guards, streams and
// events want.
namespace distorch::sim {
namespace {

c10::Device sim_device(int index) { return {kSim, static_cast<c10::DeviceIndex>(index)}; }

int index_of(c10::Device device) {
  return device.has_index() ? device.index() : thread_state().device;
}

int dense(const c10::Stream& stream) {
  return machine().stream_of(stream.device_index(), stream.id());
}

SimEvent& event_of(void* event) { return *static_cast<SimEvent*>(event); }

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kSim; }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return sim_device(thread_state().device); }
  void setDevice(c10::Device device) const override { thread_state().device = index_of(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    thread_state().device = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(device_count());
  }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }

  c10::Stream getStream(c10::Device device) const override {
    const int index = index_of(device);
    return c10::Stream(c10::Stream::UNSAFE, sim_device(index), thread_state().stream(index));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, sim_device(index_of(device)), 0);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    const int index = index_of(device);
    machine().require(index);
    return c10::Stream(c10::Stream::UNSAFE, sim_device(index), machine().new_stream_id(index));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    auto before = getStream(stream.device());
    auto& streams = thread_state().streams;
    const auto index = static_cast<std::size_t>(stream.device_index());
    if (streams.size() <= index) streams.resize(index + 1, 0);
    streams[index] = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream& stream) const override {
    return machine().idle(dense(stream));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    machine().require(stream.device_index());
    machine().finish(dense(stream));
  }
  void synchronizeDevice(c10::DeviceIndex index) const override { machine().finish_device(index); }
  void recordDataPtrOnStream(const c10::DataPtr& pointer,
                             const c10::Stream& stream) const override {
    if (!pointer.get_context()) return;
    machine().record_use(*static_cast<Allocation*>(pointer.get_context()), dense(stream));
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag) const override {
    machine().require(stream.device_index());
    if (!*event) *event = new SimEvent;
    event_of(*event) = machine().record(dense(stream));
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event) machine().wait(dense(stream), event_of(event));
  }
  bool queryEvent(void* event) const override {
    return !event || machine().reached(event_of(event));
  }
  void synchronizeEvent(void* event) const override {
    if (event) machine().finish(event_of(event));
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<SimEvent*>(event);
  }
  double elapsedTime(void* first, void* second, c10::DeviceIndex) const override {
    machine().finish(event_of(first));
    machine().finish(event_of(second));
    return (event_of(second).mark->at_s - event_of(first).mark->at_s) * 1e3;
  }
};

}  // namespace

void register_guard() {
  static c10::impl::DeviceGuardImplRegistrar registrar(
      kSim, new Guard);  // torch keeps it until the process ends
}

}  // namespace distorch::sim
