#include "distorch/nn/norm.h"

#include "distorch/device/group_norm.h"
#include "distorch/device/token_ops.h"
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
  return device::weighted_norm(x, patched(weight_), patched(bias_), eps_);
}

RmsNorm::RmsNorm(const weights::Scope& scope, std::int64_t width, double eps, std::string_view name)
    : eps_(eps), weight_(scope.weight(name, {width})) {}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  return device::rms_norm(x, patched(weight_), eps_);
}

at::Tensor RmsNorm::heads(const at::Tensor& x, const RopeTable& rope) const {
  return device::prepared_heads(x, {.weight = patched(weight_), .eps = eps_, .rope = &rope});
}

void RmsNorm::heads_into(const at::Tensor& to, const at::Tensor& x, const RopeTable& rope) const {
  device::prepare_heads_into(to, x, {.weight = patched(weight_), .eps = eps_, .rope = &rope});
}

at::Tensor layer_norm(const at::Tensor& x, double eps) {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
}

}  // namespace distorch::nn
