#include "distorch/device/channels_last.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>

#include "distorch/base/error.h"
#include "distorch/device/cuda/kernels.h"
#include "distorch/device/device.h"
#include "distorch/device/operators.h"
#include "distorch/device/streams.h"

namespace distorch::device {
namespace {

void through_copy(const at::Tensor& weight) {
  auto values = weight.permute({0, 2, 3, 1}).contiguous();
  weight.view(values.sizes()).copy_(values);
}

void on_cuda(const at::Tensor& weight) {
  if (!cuda::to_channels_last_in_place(weight, current_stream(weight.device())))
    through_copy(weight);
}

void shape_only(const at::Tensor& weight) {}

// Every value is read and written: what goes in counts once by itself.
KernelWork cost(c10::ArrayRef<c10::IValue> arguments) {
  return {.bytes = static_cast<double>(arguments[0].toTensor().nbytes())};
}

const auto& to_channels_last() {
  static const auto op = define({.schema = "to_channels_last_(Tensor(a!) weight) -> ()",
                                 .cpu = torch::CppFunction(&through_copy),
                                 .cuda = torch::CppFunction(&on_cuda),
                                 .meta = torch::CppFunction(&shape_only),
                                 .cost = cost})
                             .typed<void(const at::Tensor&)>();
  return op;
}

}  // namespace

void to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream) {
  if (weight.dim() != 4 || !weight.is_contiguous())
    throw Error(ErrorKind::Shape, name_of(weight.device()),
                "only contiguous convolution weights are laid out in place");
  const bool same_order = weight.size(1) == 1 || weight.size(2) * weight.size(3) == 1;
  if (weight.numel() == 0 || same_order) return;
  c10::OptionalStreamGuard guard;
  if (has_streams(weight.device())) guard.reset_stream(stream);
  to_channels_last().call(weight);
}

at::Tensor as_channels_last(const at::Tensor& weight) {
  return weight.view({weight.size(0), weight.size(2), weight.size(3), weight.size(1)})
      .permute({0, 3, 1, 2});
}

}  // namespace distorch::device
