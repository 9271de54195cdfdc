#include "distorch/models/control/hint_encoder.h"

#include "distorch/nn/activation.h"

namespace distorch::models::control {

using at::Tensor;

HintEncoder::HintEncoder(const weights::Scope& s, const std::vector<std::int64_t>& widths)
    : block_(s) {
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    bool halves = i == 2 || i == 4 || i == 6;
    // Activations sit at the odd places of the original's list.
    convs_.emplace_back(s / static_cast<std::int64_t>(2 * i), widths[i], widths[i + 1],
                        nn::ConvOptions{.stride = halves ? 2 : 1});
  }
}

Tensor HintEncoder::forward(const Tensor& hint) const {
  return block_.run1({hint}, [this](const weights::Tensors& in) {
    auto h = nn::to_layout(in[0], convs_.front().dtype());
    for (std::size_t i = 0; i < convs_.size(); ++i) h = convs_[i](i == 0 ? h : nn::silu_over(h));
    return h;
  });
}

}  // namespace distorch::models::control
