#include "distorch/nn/modulation.h"

#include "distorch/device/token_ops.h"

namespace distorch::nn {

at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps) {
  return device::modulated_norm(x, shift, scale, eps);
}

at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y) {
  return device::gated_add(x, gate, y);
}

}  // namespace distorch::nn
