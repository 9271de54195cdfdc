#include "distorch/nn/embedding.h"

#include <cmath>

#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/linear.h"
#include "distorch/quant/gguf.h"

namespace distorch::nn {

Embedding::Embedding(const weights::Scope& scope, std::int64_t count, std::int64_t width)
    : weight_(scope.weight("weight", {count, width})) {}

at::Tensor Embedding::operator()(const at::Tensor& ids) const {
  auto sizes = ids.sizes().vec();
  sizes.push_back(weight_.shape()[1]);
  if (weight_.adapters().empty())
    return weight_.packed()
               ? quant::rows_at(*weight_.packed(), ids.flatten(), weight_.dtype()).view(sizes)
               : at::embedding(weight_.dense(), ids);
  return Chain(weight_).rows(ids.flatten()).view(sizes);
}

at::Tensor Embedding::first(std::int64_t count) const {
  if (weight_.adapters().empty()) return weight_.dense().narrow(0, 0, count);
  auto device = weight_.dense().device();
  return Chain(weight_).rows(
      at::arange(count, at::TensorOptions().dtype(at::kLong).device(device)));
}

at::Tensor Embedding::products(const at::Tensor& x) const { return linear(x, weight_, {}); }

at::Tensor timestep_embedding(const at::Tensor& timesteps, std::int64_t width) {
  auto half = width / 2;
  // The exponent is scaled in this order, in float32, so that frequencies have the bits that models
  // were trained with.
  auto steps = at::arange(half, timesteps.options().dtype(at::kFloat));
  auto frequencies = at::exp(steps * -std::log(10000.0) / static_cast<double>(half));
  auto angles = timesteps.to(at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  auto embedding = at::cat({at::cos(angles), at::sin(angles)}, 1);
  return width % 2 ? at::constant_pad_nd(embedding, {0, 1}) : embedding;
}

}  // namespace distorch::nn
