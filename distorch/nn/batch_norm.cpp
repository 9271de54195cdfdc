#include "distorch/nn/batch_norm.h"

#include "distorch/nn/patch.h"

namespace distorch::nn {

BatchNorm::BatchNorm(const weights::Scope& s, std::int64_t channels, double eps)
    : eps_(eps),
      weight_(s.weight("weight", {channels})),
      bias_(s.weight("bias", {channels})),
      mean_(s.weight("running_mean", {channels})),
      variance_(s.weight("running_var", {channels})) {}

at::Tensor BatchNorm::operator()(const at::Tensor& x) const {
  return at::batch_norm(x, patched(weight_), patched(bias_), patched(mean_), patched(variance_),
                        false, 0.1, eps_, false);
}

}  // namespace distorch::nn
