#include "distorch/quant/rotation.h"

#include <ATen/ATen.h>

#include <cmath>

#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/int8_cuda.h"
#include "distorch/quant/row_kernels.h"

namespace distorch::quant {
namespace {

using at::Tensor;

Tensor on_cpu(const Tensor& x, std::int64_t group) {
  auto y = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  const auto width = y.size(-1), rows = width ? y.numel() / width : 0;
  auto* numbers = y.mutable_data_ptr<float>();
  constexpr std::int64_t grain = 1 << 14;  // numbers that are worth a thread
  device::parallel_for(0, rows, std::max<std::int64_t>(1, grain / std::max<std::int64_t>(1, width)),
                       [&](std::int64_t begin, std::int64_t end) {
                         kernels::rotate(numbers + begin * width, (end - begin) * width, group);
                       });
  return y;
}

Tensor on_cuda(const Tensor& x, std::int64_t group) {
  if (auto y = cuda::rotated(x, group); y.defined()) return y;
  auto matrix = rotation_matrix(group).to(x.device());
  return at::matmul(x.to(at::kFloat).unflatten(-1, {-1, group}), matrix).flatten(-2);
}

Tensor shape_only(const Tensor& x, std::int64_t) {
  return at::empty(x.sizes(), x.options().dtype(at::kFloat));
}

KernelWork cost(c10::ArrayRef<c10::IValue>) { return {.kind = KernelKind::Normalization}; }

const auto& rotate_operator() {
  static const auto op = device::define({.schema = "rotated(Tensor x, int group) -> Tensor",
                                         .cpu = torch::CppFunction(&on_cpu),
                                         .cuda = torch::CppFunction(&on_cuda),
                                         .meta = torch::CppFunction(&shape_only),
                                         .cost = cost})
                             .typed<Tensor(const Tensor&, std::int64_t)>();
  return op;
}

}  // namespace

bool is_rotation(std::int64_t group) {
  if (group < 4) return false;
  while (group > 1 && group % 4 == 0) group /= 4;
  return group == 1;
}

Tensor rotated(const Tensor& x, std::int64_t group) { return rotate_operator().call(x, group); }

Tensor rotation_matrix(std::int64_t group) {
  auto unit = at::ones({4, 4}) - 2 * at::eye(4).flip(1);
  auto matrix = at::ones({1, 1});
  for (std::int64_t size = 1; size < group; size *= 4) matrix = at::kron(matrix, unit);
  return matrix / std::sqrt(static_cast<double>(group));
}

}  // namespace distorch::quant
