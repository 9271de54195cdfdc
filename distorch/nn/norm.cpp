#include "distorch/nn/norm.h"

#include "distorch/device/group_norm.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/patch.h"

namespace distorch::nn {

GroupNorm::GroupNorm(const weights::Scope& scope, std::int64_t channels, double eps,
                     std::int64_t groups)
    : groups_(groups),
      eps_(eps),
      weight_(scope.weight("weight", {channels})),
      bias_(scope.weight("bias", {channels})) {}

at::Tensor GroupNorm::normalized(const at::Tensor& x, bool silu) const {
  auto weight = patched(weight_), bias = patched(bias_);
  if (!x.is_cpu())
    if (auto y = device::group_norm(x, weight, bias, {groups_, eps_, silu}); y.defined()) return y;
  // torch's kernel of accelerators wants it contiguous and would copy it itself; so a plan knows.
  auto y = at::group_norm(x.is_cpu() ? x : x.contiguous(), groups_, weight, bias, eps_);
  return silu ? silu_over(y) : y;
}

LayerNorm::LayerNorm(const weights::Scope& scope, std::int64_t width, double eps)
    : eps_(eps), weight_(scope.weight("weight", {width})), bias_(scope.weight("bias", {width})) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, weight_.shape(), patched(weight_), patched(bias_), eps_);
}

}  // namespace distorch::nn
