#include "distorch/device/group_norm.h"

#include "distorch/device/kind.h"

namespace distorch::device {

at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options) {
  const bool image = x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
  if (!image || x.numel() == 0 || !weight.defined() || !bias.defined() ||
      weight.scalar_type() != x.scalar_type() || bias.scalar_type() != x.scalar_type() ||
      !weight.is_contiguous() || !bias.is_contiguous() || x.size(1) % options.groups != 0)
    return {};
  return kind_of(x.device().type()).group_norm(x, weight, bias, options);
}

}  // namespace distorch::device
