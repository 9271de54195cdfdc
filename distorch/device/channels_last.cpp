#include "distorch/device/channels_last.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/kind.h"
#include "distorch/device/streams.h"

namespace distorch::device {

void to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream) {
  if (weight.dim() != 4 || !weight.is_contiguous())
    throw Error(ErrorKind::Shape, name_of(weight.device()),
                "only contiguous convolution weights are laid out in place");
  const bool same_order = weight.size(1) == 1 || weight.size(2) * weight.size(3) == 1;
  if (weight.numel() == 0 || same_order) return;
  if (kind_of(weight.device().type()).to_channels_last_in_place(weight, stream)) return;
  c10::OptionalStreamGuard guard;
  if (has_streams(weight.device())) guard.reset_stream(stream);
  auto values = weight.permute({0, 2, 3, 1}).contiguous();
  weight.view(values.sizes()).copy_(values);
}

at::Tensor as_channels_last(const at::Tensor& weight) {
  return weight.view({weight.size(0), weight.size(2), weight.size(3), weight.size(1)})
      .permute({0, 3, 1, 2});
}

}  // namespace distorch::device
