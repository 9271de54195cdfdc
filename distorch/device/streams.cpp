#include "distorch/device/streams.h"

#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/kind.h"

namespace distorch::device {
namespace {

using c10::impl::VirtualGuardImpl;

thread_local std::vector<std::string> places;

}  // namespace

c10::Stream Kind::sending_stream(c10::Device device) {
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceType, int>, c10::StreamId> streams;
  std::lock_guard lock(mutex);
  auto key = std::make_pair(device.type(), static_cast<int>(device.index()));
  auto found = streams.find(key);
  if (found == streams.end()) found = streams.emplace(key, new_stream(device, true).id()).first;
  return c10::Stream(c10::Stream::UNSAFE, device, found->second);
}

bool has_streams(c10::Device device) { return !device.is_cpu(); }

c10::Stream current_stream(c10::Device device) {
  return VirtualGuardImpl(device.type()).getStream(device);
}

c10::Stream Kind::new_stream(c10::Device device, bool high_priority) {
  const VirtualGuardImpl guard(device.type());
  return has_streams(device) ? guard.getStreamFromGlobalPool(device, high_priority)
                             : guard.getStream(device);
}

c10::Stream new_stream(c10::Device device, bool high_priority) {
  return kind_of(device.type()).new_stream(device, high_priority);
}

void synchronize(c10::Device device) {
  if (!has_streams(device)) return;
  const VirtualGuardImpl guard(device.type());
  guard.synchronizeDevice(device.has_index() ? device.index() : guard.getDevice().index());
}

void synchronize(const c10::Stream& stream) {
  if (has_streams(stream.device()))
    VirtualGuardImpl(stream.device_type()).synchronizeStream(stream);
}

Event::Event(c10::Device device) {
  if (has_streams(device)) event_.emplace(device.type());
}

void Event::record(const c10::Stream& stream) {
  if (event_) event_->record(stream);
}

void Event::block(const c10::Stream& stream) {
  if (event_ && has_streams(stream.device())) event_->block(stream);
}

void Event::synchronize() {
  if (event_) event_->synchronize();
}

bool Event::reached() const { return !event_ || event_->query(); }

Counter::Counter(c10::Device device) : device_(device) {
  if (!has_streams(device)) return;
  word_ = at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(device));
  const auto stream = current_stream(device);
  if (kind_of(device.type()).can_count(word_.mutable_data_ptr(), stream))
    synchronize(stream);
  else
    word_ = at::Tensor();
}

/// Its memory must not become another tensor's while the stream may still come to it.
void Counter::used_by(const c10::Stream& stream) {
  if (std::find(streams_.begin(), streams_.end(), stream) != streams_.end()) return;
  streams_.push_back(stream);
  record_stream(word_, stream);
}

std::uint32_t Counter::raise(const c10::Stream& stream) {
  std::lock_guard lock(mutex_);
  if (++count_ == 0) ++count_;  // which says that there is nothing to wait for
  if (word_.defined()) {
    used_by(stream);
    kind_of(device_.type()).set_counter(word_.mutable_data_ptr(), count_, stream);
  } else if (has_streams(device_)) {
    constexpr std::size_t kept = 256;  // whoever waits for an older one waits for the oldest
    if (events_.size() < kept) {
      events_.emplace_back(device_);
    } else {
      events_.push_back(std::move(events_.front()));
      events_.pop_front();
    }
    events_.back().record(stream);
  }
  return count_;
}

void Counter::wait(std::uint32_t count, const c10::Stream& stream) {
  if (count == 0 || !has_streams(device_)) return;
  std::lock_guard lock(mutex_);
  if (word_.defined()) {
    used_by(stream);
    kind_of(device_.type()).wait_counter(word_.const_data_ptr(), count, stream);
    return;
  }
  const std::size_t back = count_ - count;
  events_[back < events_.size() ? events_.size() - 1 - back : 0].block(stream);
}

namespace {

void require_alike(const at::Tensor& dst, const at::Tensor& src) {
  if (dst.sizes() != src.sizes() || dst.scalar_type() != src.scalar_type())
    throw Error(ErrorKind::Shape, name_of(dst.device()),
                "an asynchronous copy needs the same shape and dtype on both sides");
}

}  // namespace

void copy_async(const at::Tensor& dst, const at::Tensor& src, const c10::Stream& stream) {
  require_alike(dst, src);
  if (!has_streams(stream.device())) {
    dst.copy_(src);
    return;
  }
  if (has_streams(src.device()) && has_streams(dst.device()) && src.device() != dst.device()) {
    // torch copies on the source's current stream and lets the target's current stream wait for it.
    c10::StreamGuard sends(kind_of(src.device().type()).sending_stream(src.device()));
    c10::StreamGuard receives(stream);
    dst.copy_(src, true);
    return;
  }
  const bool plain = src.is_cpu() && src.is_contiguous() && dst.is_contiguous();
  if (plain && kind_of(dst.device().type())
                   .copy_from_host(dst.mutable_data_ptr(), src.const_data_ptr(),
                                   static_cast<std::int64_t>(src.nbytes()), stream))
    return;
  c10::StreamGuard guard(stream);
  dst.copy_(src, true);
}

void copy_async(const std::vector<Copy>& copies, const c10::Stream& stream) {
  std::vector<HostCopy> together;
  bool plain = true;
  for (const auto& [dst, src] : copies) {
    require_alike(dst, src);
    plain = plain && src.is_cpu() && src.is_contiguous() && dst.is_contiguous();
    if (src.nbytes() > 0)
      together.push_back({dst.mutable_data_ptr(), src.const_data_ptr(), src.nbytes()});
  }
  if (plain && together.size() > 1 &&
      kind_of(stream.device().type()).copy_from_host(together, stream))
    return;
  for (const auto& [dst, src] : copies) copy_async(dst, src, stream);
}

void record_stream(const at::Tensor& tensor, const c10::Stream& stream) {
  if (has_streams(tensor.device()) && tensor.defined()) tensor.record_stream(stream);
}

void host_will_write(const void* start, std::int64_t bytes) {
  for (auto* kind : kinds()) kind->host_touches(start, bytes, true);
}

void host_will_read(const void* start, std::int64_t bytes) {
  for (auto* kind : kinds()) kind->host_touches(start, bytes, false);
}

NamedScope::NamedScope(std::string name) { places.push_back(std::move(name)); }
NamedScope::~NamedScope() { places.pop_back(); }

std::string NamedScope::path() {
  std::string path;
  for (const auto& place : places) path += (path.empty() ? "" : " / ") + place;
  return path;
}

}  // namespace distorch::device
