#include "distorch/nn/adapters/products.h"

namespace distorch::nn {
namespace {

at::Tensor matrix_of(const at::Tensor& kernel) {
  return kernel.dim() > 2 ? kernel.flatten(1) : kernel;
}

}  // namespace

at::Tensor LinearProducts::with(const at::Tensor& x, const weights::Weight& weight,
                                const std::optional<at::Tensor>& bias) const {
  if (weight.packed()) return quant::linear(x, *weight.packed(), bias.value_or(at::Tensor()));
  if (kernel_ == 1) return at::linear(x, matrix_of(weight.dense()), bias);
  // Kernels are laid out in several ways, so that a matrix of them is a copy: of some rows at a time.
  constexpr std::int64_t step = 256;
  std::vector<at::Tensor> parts;
  for (std::int64_t first = 0, out = weight.shape()[0]; first < out; first += step)
    parts.push_back(at::linear(x, matrix_of(weight.rows(first, std::min(step, out - first)))));
  auto y = at::cat(parts, -1);
  return bias ? y.add_(*bias) : y;
}

at::Tensor LinearProducts::whole(const at::Tensor& x, const at::Tensor& kernel) const {
  return at::linear(x, matrix_of(kernel));
}

at::Tensor LinearProducts::mix_in(const at::Tensor& x, const at::Tensor& matrix) const {
  if (kernel_ == 1) return at::linear(x, matrix_of(matrix));
  return at::matmul(matrix_of(matrix), x.unflatten(-1, {-1, kernel_})).flatten(-2);
}

at::Tensor LinearProducts::mix_out(const at::Tensor& y, const at::Tensor& matrix) const {
  return at::linear(y, matrix_of(matrix));
}

at::Tensor LinearProducts::scale_in(const at::Tensor& x, const at::Tensor& factors) const {
  if (kernel_ == 1) return x * factors;
  return (x.unflatten(-1, {-1, kernel_}) * factors.unsqueeze(-1)).flatten(-2);
}

at::Tensor LinearProducts::scale_out(const at::Tensor& y, const at::Tensor& factors) const {
  return y * factors;
}

at::Tensor LinearProducts::split_in(const at::Tensor& x, std::int64_t groups) const {
  return x.unflatten(-1, {groups, -1});
}

at::Tensor LinearProducts::join_out(const at::Tensor& y, const at::Tensor& matrix) const {
  return at::matmul(matrix, y).flatten(-2);
}

}  // namespace distorch::nn
