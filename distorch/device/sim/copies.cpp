#include <fmt/format.h>

#include <cstring>

#include "distorch/base/error.h"
#include "distorch/device/sim/backend.h"
#include "distorch/device/streams.h"

// Copies to, from, within and between simulated devices, with the rules of CUDA: which stream they
// run on, when the host waits, what is refused.
namespace distorch::sim {
namespace {

std::string device_name(int index) { return fmt::format("sim:{}", index); }

// The bytes of a host tensor if they are page-locked, for the race check where someone may
// overwrite them.
struct HostSide {
  bool registered = false;
  HostUse use;
};

HostSide host_side(const at::Tensor& tensor, bool writes) {
  HostSide side;
  bool writable = false;
  side.registered =
      tensor.numel() > 0 && is_registered(tensor.const_data_ptr(), tensor.nbytes(), &writable);
  if (side.registered && writable)
    side.use = {tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()), writes};
  return side;
}

void copy_values(const at::Tensor& to, const at::Tensor& from) {
  if (machine().is_dry()) {
    if (to.is_cpu()) to.zero_();  // values that nobody computed are at least the same every time
    return;
  }
  to.copy_(from);
}

at::Tensor cpu_or_view(const at::Tensor& tensor) {
  return tensor.device().type() == kSim ? host_view(tensor) : tensor;
}

// Between host and device, on the device's current stream.
void copy_host(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const bool upload = to.device().type() == kSim;
  const auto& device_tensor = upload ? to : from;
  const auto& host_tensor = upload ? from : to;
  const int index = device_tensor.device().index();
  machine().require(index);
  machine().about_to_copy(index);
  const auto side = host_side(host_tensor, !upload);
  const int stream = machine().current_stream(index);
  const auto* label = label_of(upload ? "copy to device" : "copy to host");
  machine().use(stream, label, {touch_of(device_tensor, upload)});
  CopyJob job{upload ? "cpu" : device_name(index), upload ? device_name(index) : "cpu"};
  job.bytes = static_cast<int64_t>(from.numel()) * from.element_size();
  job.slowdown = side.registered ? 1 : 1 / machine().options().pageable_share;
  const bool blocking = !(non_blocking && side.registered);
  const bool plain = from.scalar_type() == to.scalar_type() &&
                     from.is_non_overlapping_and_dense() && from.strides() == to.strides();
  const KernelWork rearrange{
      // on the device's side
      .dtype = dtype_name(from.scalar_type()),
      .bytes = static_cast<double>(job.bytes) + static_cast<double>(to.nbytes())};
  copy_values(cpu_or_view(to), cpu_or_view(from));
  if (!plain && !upload) machine().kernel(stream, label, rearrange);
  machine().transfer(stream, label, job, side.use);
  if (!plain && upload) machine().kernel(stream, label, rearrange);
  if (blocking) machine().finish(stream);
}

void copy_within(const at::Tensor& from, const at::Tensor& to) {
  static const std::string name = "aten::copy_";
  Operation operation(name);
  auto target = operation.input(to, true);
  auto source = operation.input(from);
  operation.begin();
  if (!operation.is_dry()) target.copy_(source);
  operation.end();
}

// Between two devices CUDA uses the source's current stream and makes the target's current stream
// wait for it, after the source has waited for the target.
void copy_across(const at::Tensor& from, const at::Tensor& to) {
  const int source = from.device().index(), target = to.device().index();
  machine().require(source);
  machine().require(target);
  machine().about_to_copy(source);
  machine().about_to_copy(target);
  const int stream = machine().current_stream(source), other = machine().current_stream(target);
  machine().wait(stream, machine().record(other));
  const auto* label = label_of("copy between devices");
  machine().use(stream, label, {touch_of(from, false), touch_of(to, true)});
  copy_values(cpu_or_view(to), cpu_or_view(from));
  CopyJob job{device_name(source), device_name(target)};
  job.bytes = static_cast<int64_t>(from.numel()) * from.element_size();
  machine().transfer(stream, label, job);
  machine().wait(other, machine().record(stream));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (to.numel() == 0) return to;
  const bool from_sim = from.device().type() == kSim, to_sim = to.device().type() == kSim;
  TORCH_CHECK((from_sim || from.is_cpu()) && (to_sim || to.is_cpu()), "no copy from ",
              from.device(), " to ", to.device());
  auto source = from.sizes() == to.sizes() ? from : from.expand_as(to);
  if (from_sim && to_sim) {
    if (from.device() == to.device())
      copy_within(source, to);
    else
      copy_across(source, to);
  } else {
    copy_host(source, to, non_blocking);
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar value_of(const at::Tensor& tensor) {
  auto& m = machine();
  const int index = tensor.device().index();
  m.require(index);
  const auto* writer = allocation_of(tensor).log.last_writer();
  if (m.is_dry()) {
    const auto place = device::NamedScope::path();
    throw Error(
        ErrorKind::Internal, place.empty() ? "dry run" : place,
        fmt::format(
            "a value was asked for (item) that a dry run does not have; last computed by '{}'",
            writer ? *writer : "nothing"));
  }
  const int stream = m.current_stream(index);
  const auto* label = label_of("item");
  m.use(stream, label, {touch_of(tensor, false)});
  m.transfer(stream, label,
             {device_name(index), "cpu", static_cast<int64_t>(tensor.element_size()), 1, true});
  return host_view(tensor).item();
}

bool equal(const at::Tensor& a, const at::Tensor& b) {
  static const std::string name = "aten::equal";
  if (a.sizes() != b.sizes()) return false;
  Operation operation(name);
  auto left = operation.input(a), right = operation.input(b);
  operation.begin();
  if (operation.is_dry())
    throw Error(ErrorKind::Internal, "dry run",
                "equal() asks for values that a dry run does not have");
  const bool same = at::equal(left, right);
  operation.end();
  machine().finish(machine().current_stream(operation.device()));
  return same;
}

void record_stream(at::Tensor& tensor, c10::Stream stream) {
  auto& m = machine();
  m.record_use(allocation_of(tensor), m.stream_of(stream.device_index(), stream.id()));
}

}  // namespace

void register_copies(torch::Library& aten) {
  aten.impl("_copy_from", copy_from);
  aten.impl("_copy_from_and_resize", copy_from_and_resize);
  aten.impl("_local_scalar_dense", value_of);
  aten.impl("equal", equal);
  aten.impl("record_stream", record_stream);
}

}  // namespace distorch::sim
