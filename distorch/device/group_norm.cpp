#include "distorch/device/group_norm.h"

#include <ATen/ATen.h>

#include "distorch/device/cuda/kernels.h"
#include "distorch/device/device.h"
#include "distorch/device/operators.h"

namespace distorch::device {
namespace {

using at::Tensor;

constexpr auto kImages = at::MemoryFormat::ChannelsLast;

Tensor on_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, std::int64_t groups,
              double eps, bool silu) {
  auto y = at::group_norm(x, groups, weight, bias, eps).contiguous(kImages);
  return silu ? at::silu_(y) : y;
}

Tensor on_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias, std::int64_t groups,
               double eps, bool silu) {
  auto y = cuda::group_norm(x, weight, bias, {groups, eps, silu});
  // Where NVRTC is missing.
  return y.defined() ? y : on_cpu(x.contiguous(), weight, bias, groups, eps, silu);
}

Tensor shape_of(const Tensor& x, const Tensor&, const Tensor&, std::int64_t, double, bool) {
  return at::empty_like(x, x.options(), kImages);
}

KernelWork cost(c10::ArrayRef<c10::IValue>) { return {.kind = KernelKind::Normalization}; }

const auto& group_norm_silu() {
  static const auto op =
      define({.schema = "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, "
                        "float eps, bool silu) -> Tensor",
              .cpu = torch::CppFunction(&on_cpu),
              .cuda = torch::CppFunction(&on_cuda),
              .meta = torch::CppFunction(&shape_of),
              .cost = cost})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, std::int64_t, double, bool)>();
  return op;
}

}  // namespace

bool has_group_norm_kernel(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           std::int64_t groups) {
  constexpr std::int64_t widest_group = 256;
  if (computes_as_cpu(x.device()) || x.dim() != 4 || x.numel() == 0 || x.size(1) % groups != 0 ||
      !x.is_contiguous(kImages))
    return false;
  const auto dtype = x.scalar_type();
  if (dtype != at::kFloat && dtype != at::kHalf && dtype != at::kBFloat16) return false;
  const auto pair_bytes = 2 * static_cast<std::int64_t>(x.element_size());
  const auto in_pairs = [&](const Tensor& tensor) {
    return tensor.defined() && tensor.scalar_type() == dtype &&
           reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % pair_bytes == 0;
  };
  const auto per_group = x.size(1) / groups;
  return per_group % 2 == 0 && per_group <= widest_group && in_pairs(x) && in_pairs(weight) &&
         in_pairs(bias) && weight.is_contiguous() && bias.is_contiguous() &&
         x.numel() < (std::int64_t{1} << 40) &&
         x.size(2) * x.size(3) * per_group < (std::int64_t{1} << 30);
}

Tensor group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const GroupNormOptions& options) {
  if (has_group_norm_kernel(x, weight, bias, options.groups))
    return group_norm_silu().call(x, weight, bias, options.groups, options.eps, options.silu);
  const auto maybe = [](const Tensor& tensor) {
    return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
  };
  // torch's kernel of accelerators wants it contiguous and would copy it itself; so a plan knows.
  auto y = at::group_norm(computes_as_cpu(x.device()) ? x : x.contiguous(), options.groups,
                          maybe(weight), maybe(bias), options.eps);
  return options.silu ? at::silu_(y) : y;
}

}  // namespace distorch::device
