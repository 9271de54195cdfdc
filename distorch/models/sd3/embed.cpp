#include "distorch/models/sd3/embed.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/whole_patches.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sd3 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kTimeFrequencies = 256;

/// Sines and cosines of positions [N]: [N, width], float32.
Tensor waves(const Tensor& positions, std::int64_t width) {
  auto options = positions.options();
  auto frequencies = at::pow(10000.0, at::arange(width / 2, options) / (-0.5 * width));
  auto angles = positions.unsqueeze(1) * frequencies;
  return at::cat({angles.sin(), angles.cos()}, 1);
}

/// Positions of a model without a table, centred at 7.5 and 15 wide where the picture is shorter:
/// [height · width, channels].
Tensor computed_positions(const TokenGrid& grid, std::int64_t channels,
                          const at::TensorOptions& options) {
  constexpr double kCentre = 7.5, kReach = 7.5;
  auto shorter = static_cast<double>(std::min(grid.height, grid.width));
  auto axis = [&](std::int64_t count) {
    auto reach = static_cast<double>(count) / shorter * kReach;
    return waves(at::linspace(kCentre - reach, kCentre + reach, count, options), channels / 2);
  };
  auto rows = axis(grid.height).unsqueeze(1).expand({-1, grid.width, -1});
  auto columns = axis(grid.width).unsqueeze(0).expand({grid.height, -1, -1});
  return at::cat({columns, rows}, -1).flatten(0, 1);
}

}  // namespace

Tensor VectorEmbedder::operator()(const Tensor& x) const {
  return second_(nn::silu_over(first_(x)));
}

Embedders::Embedders(const Scope& s, const MmditConfig& c)
    : config_(c),
      block_(s),
      patches_(s / "x_embedder" / "proj", c.in_channels, c.width,
               {.kernel = c.patch, .stride = c.patch, .padding = 0}),
      time_(s / "t_embedder", kTimeFrequencies, c.width),
      vector_(s / "y_embedder", c.vector_width, c.width),
      text_(s / "context_embedder", c.text_width, c.width) {
  if (c.positions > 0) positions_ = s.weight("pos_embed", {c.positions * c.positions, c.width});
}

Tensor Embedders::positions(const TokenGrid& grid, const Tensor& like) const {
  if (!positions_.declared())
    return computed_positions(grid, config_.width,
                              at::TensorOptions().device(like.device()).dtype(at::kFloat))
        .to(like.scalar_type());
  // The middle of the table, whole rows of which are read.
  auto side = config_.positions;
  auto top = (side - grid.height) / 2, left = (side - grid.width) / 2;
  return positions_.rows(top * side, grid.height * side)
      .view({grid.height, side, config_.width})
      .narrow(1, left, grid.width)
      .reshape({grid.height * grid.width, config_.width});
}

Embedders::Embedded Embedders::forward(const Tensor& latent, const Tensor& timestep,
                                       const Tensor& vector, const Tensor& context) const {
  TokenGrid grid(latent, config_);
  if (config_.positions > 0 && std::max(grid.height, grid.width) > config_.positions)
    throw Error(ErrorKind::Shape, "diffusion model",
                fmt::format("takes latents of {0}x{0} cells at most, got {1}x{2}",
                            config_.positions * config_.patch, latent.size(3), latent.size(2)));
  auto out = block_.run({latent, timestep, vector, context}, [&](const Tensors& in) -> Tensors {
    auto dtype = text_.dtype();
    auto image = patches_(whole_patches(in[0].to(dtype), config_.patch));
    auto tokens = nn::to_tokens(image) + positions(grid, image);
    auto c = time_(nn::timestep_embedding(in[1], kTimeFrequencies).to(dtype));
    return {tokens, nn::silu_over(c.add_(vector_(in[2].to(dtype)))), text_(in[3].to(dtype))};
  });
  return {out[0], out[1], out[2]};
}

HintTokens::HintTokens(const Scope& s, const MmditConfig& c, std::int64_t channels)
    : block_(s),
      patch_(c.patch),
      conv_(s / "pos_embed_input" / "proj", channels, c.width,
            {.kernel = c.patch, .stride = c.patch, .padding = 0}) {}

Tensor HintTokens::forward(const Tensor& image, const Tensor& hint) const {
  return block_.run1({image, hint}, [this](const Tensors& in) {
    auto latent = whole_patches(in[1].to(in[0].scalar_type()), patch_);
    return nn::to_tokens(conv_(latent)) + in[0];
  });
}

}  // namespace distorch::models::sd3
