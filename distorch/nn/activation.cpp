#include "distorch/nn/activation.h"

#include "distorch/device/token_ops.h"

namespace distorch::nn {

at::Tensor silu(const at::Tensor& x) { return at::silu(x); }

at::Tensor silu_over(at::Tensor x) { return at::silu_(x); }

at::Tensor gelu(const at::Tensor& x) { return at::gelu(x); }

at::Tensor quick_gelu(const at::Tensor& x) { return at::sigmoid(x * 1.702).mul_(x); }

at::Tensor geglu(const at::Tensor& x) {
  return device::activated({}, x, device::Activation::GeGlu);
}

at::Tensor gelu_tanh_over(at::Tensor x) { return at::gelu_(x, "tanh"); }

at::Tensor activated_behind(const at::Tensor& left, const at::Tensor& x, bool gated) {
  return device::activated(left, x,
                           gated ? device::Activation::SwiGlu : device::Activation::GeluTanh);
}

at::Tensor swiglu_over(at::Tensor gate, const at::Tensor& x) { return at::silu_(gate).mul_(x); }

}  // namespace distorch::nn
