#include "distorch/models/sd/res_block.h"

#include "distorch/nn/activation.h"

namespace distorch::models::sd {

using at::Tensor;
using weights::Tensors;

ResBlock::ResBlock(const weights::Scope& s, const Widths& w)
    : block_(s),
      norm1_(s / "in_layers" / 0, w.in),
      conv1_(s / "in_layers" / 2, w.in, w.out),
      time_(s / "emb_layers" / 1, w.time, w.out),
      norm2_(s / "out_layers" / 0, w.out),
      conv2_(s / "out_layers" / 3, w.out, w.out) {
  if (w.in != w.out) shortcut_.emplace(s / "skip_connection", w.in, w.out, nn::pointwise);
}

Tensor ResBlock::forward(const Tensor& x, const Tensor& skip, const Tensor& emb,
                         const Edit& edit) const {
  return block_.run1({x, skip, emb}, [&](const Tensors& in) {
    auto h = in[0], stacked = in[1];
    if (edit && stacked.defined()) edit(h, stacked);
    return apply(stacked.defined() ? at::cat({h, stacked}, 1) : h, in[2]);
  });
}

Tensor ResBlock::apply(const Tensor& x, const Tensor& emb) const {
  auto h = conv1_(norm1_.silu(x), time_(nn::silu(emb)));
  h = conv2_(norm2_.silu(h));
  return h.add_(shortcut_ ? (*shortcut_)(x) : x);
}

Tensor Downsample::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) { return conv_(in[0]); });
}

Tensor Upsample::forward(const Tensor& x, std::int64_t height, std::int64_t width) const {
  return block_.run1(
      {x}, [&](const Tensors& in) { return conv_(nn::upsample_nearest(in[0], height, width)); });
}

}  // namespace distorch::models::sd
