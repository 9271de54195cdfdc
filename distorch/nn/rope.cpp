#include "distorch/nn/rope.h"

namespace distorch::nn {

RopeTable rope_table(const at::Tensor& ids, const std::vector<std::int64_t>& widths, double theta,
                     bool halves) {
  std::vector<at::Tensor> angles;
  auto options = at::TensorOptions().dtype(at::kDouble).device(ids.device());
  for (std::size_t axis = 0; axis < widths.size(); ++axis) {
    auto exponents = at::arange(0, widths[axis], 2, options) / static_cast<double>(widths[axis]);
    auto frequencies = at::pow(theta, exponents.neg());
    auto position = ids.select(-1, static_cast<std::int64_t>(axis)).to(at::kDouble);
    angles.push_back(position.unsqueeze(-1) * frequencies);
  }
  auto all = at::cat(angles, -1);
  return {all.cos().to(at::kFloat), all.sin().to(at::kFloat), halves};
}

at::Tensor apply_rope(const at::Tensor& x, const RopeTable& rope) {
  return device::prepared_heads(x, {.norm = false, .rope = &rope});
}

}  // namespace distorch::nn
