#include "distorch/nn/norm.h"

#include "distorch/device/group_norm.h"
#include "distorch/nn/patch.h"

namespace distorch::nn {

GroupNorm::GroupNorm(const weights::Scope& scope, std::int64_t channels, double eps,
                     std::int64_t groups)
    : groups_(groups),
      eps_(eps),
      weight_(scope.weight("weight", {channels})),
      bias_(scope.weight("bias", {channels})) {}

at::Tensor GroupNorm::normalized(const at::Tensor& x, bool silu) const {
  return device::group_norm(x, patched(weight_), patched(bias_), {groups_, eps_, silu});
}

LayerNorm::LayerNorm(const weights::Scope& scope, std::int64_t width, double eps)
    : eps_(eps), weight_(scope.weight("weight", {width})), bias_(scope.weight("bias", {width})) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, weight_.shape(), patched(weight_), patched(bias_), eps_);
}

}  // namespace distorch::nn
