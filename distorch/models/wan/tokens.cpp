#include "distorch/models/wan/tokens.h"

#include "distorch/models/wan/config.h"
#include "distorch/models/whole_patches.h"

namespace distorch::models::wan {

using at::Tensor;

namespace {

std::int64_t in_tokens(std::int64_t cells) { return (cells + kPatch - 1) / kPatch; }

}  // namespace

Tensor to_tokens(const Tensor& latent) { return patches_as_tokens(latent, kPatch); }

Tensor to_latent(const Tensor& tokens, at::IntArrayRef latent) {
  auto batch = tokens.size(0), channels = tokens.size(2) / (kPatch * kPatch);
  auto frames = latent[2], rows = in_tokens(latent[3]), columns = in_tokens(latent[4]);
  return tokens.reshape({batch, frames, rows, columns, kPatch, kPatch, channels})
      .permute({0, 6, 1, 2, 4, 3, 5})
      .reshape({batch, channels, frames, rows * kPatch, columns * kPatch})
      .narrow(3, 0, latent[3])
      .narrow(4, 0, latent[4]);
}

Tensor positions(at::IntArrayRef latent, std::int64_t before, at::Device device,
                 std::int64_t first) {
  return spread_positions({latent[2] + before, in_tokens(latent[3]), in_tokens(latent[4])},
                          latent.slice(3), first, device);
}

Tensor spread_positions(at::IntArrayRef tokens, at::IntArrayRef cells, std::int64_t first,
                        at::Device device) {
  auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  auto places = [&](std::int64_t count, std::int64_t size) {
    auto last = in_tokens(size) - 1;
    if (count - 1 == last) return at::arange(count, options);
    return at::linspace(0, static_cast<double>(last), count, options);
  };
  auto shape = tokens.vec();
  auto frame = at::arange(first, first + shape[0], options).view({-1, 1, 1});
  auto row = places(shape[1], cells[0]).view({1, -1, 1});
  auto column = places(shape[2], cells[1]).view({1, 1, -1});
  return at::stack({frame.expand(shape), row.expand(shape), column.expand(shape)}, -1)
      .reshape({1, -1, 3});
}

}  // namespace distorch::models::wan
