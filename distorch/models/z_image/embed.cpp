#include "distorch/models/z_image/embed.h"

#include "distorch/models/whole_patches.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/patch.h"

namespace distorch::models::z_image {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kTimeFrequencies = 256;
constexpr double kEps = 1e-5;

std::int64_t rounded_up(std::int64_t count, std::int64_t to) { return (count + to - 1) / to * to; }

Tensor filled_up(const Tensor& tokens, std::int64_t length, const weights::Weight& pad) {
  auto missing = length - tokens.size(1);
  if (missing == 0) return tokens;
  auto pads = nn::patched(pad).to(tokens.scalar_type());
  return at::cat({tokens, pads.unsqueeze(0).expand({tokens.size(0), missing, -1})}, 1);
}

}  // namespace

Lengths::Lengths(const Tensor& latent, const Tensor& context, const NextDitConfig& c)
    : height(rounded_up(latent.size(2), c.patch) / c.patch),
      width(rounded_up(latent.size(3), c.patch) / c.patch),
      text(c.pads ? rounded_up(context.size(1), kPadTo) : context.size(1)),
      image(c.pads ? rounded_up(height * width, kPadTo) : height * width) {}

Tensor positions(const Lengths& lengths, at::Device device) {
  constexpr std::int64_t kAxes = 3;  // index, row, column
  auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  auto text = at::zeros({lengths.text, kAxes}, options);
  text.select(1, 0).copy_(at::arange(1, lengths.text + 1, options));
  auto image = at::zeros({lengths.height, lengths.width, kAxes}, options);
  image.select(2, 0).fill_(static_cast<double>(lengths.text + 1));
  image.select(2, 1).copy_(at::arange(lengths.height, options).unsqueeze(1));
  image.select(2, 2).copy_(at::arange(lengths.width, options).unsqueeze(0));
  auto rest = at::zeros({lengths.image - lengths.height * lengths.width, kAxes}, options);
  return at::cat({text, image.flatten(0, 1), rest}).unsqueeze(0);
}

Embedders::Embedders(const Scope& s, const NextDitConfig& c)
    : config_(c),
      block_(s),
      patches_(s / "x_embedder", c.patch * c.patch * c.channels, c.width),
      text_norm_(s / "cap_embedder" / 0, c.text_width, kEps),
      text_(s / "cap_embedder" / 1, c.text_width, c.width),
      time_in_(s / "t_embedder" / "mlp" / 0, kTimeFrequencies, c.time_width),
      time_out_(s / "t_embedder" / "mlp" / 2, c.time_width, c.embedded_width) {
  if (!c.pads) return;
  image_pad_ = s.weight("x_pad_token", {1, c.width});
  text_pad_ = s.weight("cap_pad_token", {1, c.width});
}

Tensor to_patches(const Tensor& latent, std::int64_t p) {
  auto whole = whole_patches(latent, p);
  auto channels = whole.size(1), rows = whole.size(2) / p, columns = whole.size(3) / p;
  return whole.reshape({whole.size(0), channels, rows, p, columns, p})
      .permute({0, 2, 4, 3, 5, 1})
      .reshape({whole.size(0), rows * columns, p * p * channels});
}

Embedders::Embedded Embedders::forward(const Tensor& latent, const Tensor& timestep,
                                       const Tensor& context, const Lengths& lengths) const {
  auto out = block_.run({latent, timestep, context}, [&](const Tensors& in) -> Tensors {
    auto dtype = patches_.dtype();
    auto waves = nn::timestep_embedding((1.0 - in[1]) * config_.time_scale(), kTimeFrequencies);
    auto level = time_out_(nn::silu_over(time_in_(waves.to(dtype))));
    return {
        filled_up(patches_(to_patches(in[0].to(dtype), config_.patch)), lengths.image, image_pad_),
        filled_up(text_(text_norm_(in[2].to(dtype))), lengths.text, text_pad_), level,
        nn::silu(level)};
  });
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace distorch::models::z_image
