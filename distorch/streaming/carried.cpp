#include "distorch/streaming/carried.h"

#include <c10/core/InferenceMode.h>

#include "distorch/device/streams.h"

namespace distorch::streaming {

using weights::Tensors;

Tensors Carried::send(const Tensors& tensors, at::Device donor) const {
  Tensors sent;
  for (const auto& tensor : tensors) {
    at::Tensor there;
    for (const auto& twin : twins_) {
      if (!tensor.defined() || twin.there.device() != donor) continue;
      const auto here = twin.here.lock();
      if (here && here.get() == tensor.unsafeGetTensorImpl() && tensor._version() == twin.version)
        there = twin.there;
    }
    // What the host is to read must be there.
    if (tensor.defined() && !there.defined())
      there = tensor.to(donor, tensor.scalar_type(), !donor.is_cpu());
    sent.push_back(std::move(there));
  }
  return sent;
}

/// Between two accelerators the copy has a stream of its own, so that the donor goes on meanwhile.
at::Tensor Carried::fetched(const at::Tensor& result, at::Device compute) {
  const auto donor = result.device();
  if (!device::has_streams(donor) || !device::has_streams(compute))
    return result.to(compute, result.scalar_type(), !compute.is_cpu());
  if (!side_ || side_->device() != donor) side_ = device::new_stream(donor);
  auto here = at::empty_like(result, result.options().device(compute));
  device::Event made(donor);
  made.record(device::current_stream(donor));
  made.block(*side_);
  {
    c10::StreamGuard beside(*side_);
    here.copy_(result, /*non_blocking=*/true);
  }
  device::record_stream(result, *side_);
  return here;
}

void Carried::forget_gone() {
  std::erase_if(twins_, [](const Twin& twin) { return twin.here.expired(); });
}

Tensors Carried::fetch(const Tensors& results, at::Device compute) {
  forget_gone();
  // Tensors of inference mode do not count how often they are changed.
  c10::InferenceMode counted(false);
  Tensors all;
  for (const auto& result : results) {
    all.push_back(result.defined() ? fetched(result, compute) : result);
    if (!result.defined() || all.back().is_inference()) continue;
    twins_.push_back({c10::weak_intrusive_ptr<c10::TensorImpl>(all.back().getIntrusivePtr()),
                      static_cast<std::int64_t>(all.back()._version()), result});
  }
  return all;
}

}  // namespace distorch::streaming
