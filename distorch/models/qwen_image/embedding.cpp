#include "distorch/models/qwen_image/embedding.h"

#include "distorch/models/joint_parts.h"
#include "distorch/nn/activation.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Tensors;

namespace {
constexpr std::int64_t kSinusoids = 256;
}

Embedding::Embedding(const weights::Scope& s, const Config& c, std::int64_t hint_width)
    : block_(s),
      time1_(s / "time_text_embed" / "timestep_embedder" / "linear_1", kSinusoids, c.width),
      time2_(s / "time_text_embed" / "timestep_embedder" / "linear_2", c.width, c.width),
      image_(s / "img_in", c.latent_channels * kPatch * kPatch, c.width),
      text_norm_(s / "txt_norm", c.text_width),
      text_(s / "txt_in", c.text_width, c.width) {
  if (c.picture_kind) kind_.emplace(s / "time_text_embed" / "addition_t_embedding", 2, c.width);
  if (hint_width > 0) hint_.emplace(s / "controlnet_x_embedder", hint_width, c.width);
}

/// In its block.
Tensor Embedding::time(const Tensor& timesteps) const {
  auto waves =
      nn::timestep_embedding(timesteps.to(at::kFloat) * 1000.0, kSinusoids).to(image_.dtype());
  auto time = time2_(nn::silu_over(time1_(waves)));
  if (kind_) time.add_(kind_->first(1));
  return nn::silu_over(time);
}

Tensors Embedding::times(const Tensors& timesteps) const {
  return run_each(block_, timesteps, {},
                  [this](const Tensor& one, const Tensors&) { return time(one); });
}

Embedding::Embedded Embedding::forward(const Tensor& tokens, const Tensor& text,
                                       const Tensor& timesteps, const Tensor& hint) const {
  auto results = block_.run({tokens, text, timesteps, hint}, [this](const Tensors& in) {
    auto dtype = image_.dtype();
    auto time = this->time(in[2]);
    auto image = image_(in[0].to(dtype));
    if (in[3].defined()) image.add_((*hint_)(in[3].to(dtype)));
    return Tensors{image, text_(text_norm_(in[1].to(dtype))), time};
  });
  return {{results[0], results[1]}, results[2]};
}

}  // namespace distorch::models::qwen_image
