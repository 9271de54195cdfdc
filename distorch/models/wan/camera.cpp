#include "distorch/models/wan/camera.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Tensors;

CameraAdapter::Residual::Residual(const weights::Scope& s, std::int64_t width)
    : first(s / "conv1", width, width), second(s / "conv2", width, width) {}

CameraAdapter::CameraAdapter(const weights::Scope& s, const Config& c)
    : block_(s),
      conv_(s / "conv", c.camera_channels * kRayPixels * kRayPixels, c.width,
            {.kernel = kPatch, .stride = kPatch, .padding = 0}) {
  for (std::int64_t i = 0; i < c.camera_layers; ++i)
    residual_.emplace_back(s / "residual_blocks" / i, c.width);
}

Tensor CameraAdapter::forward(const Tensor& rays, at::IntArrayRef latent) const {
  if (rays.size(2) != latent[2] || rays.size(3) != latent[3] * kRayPixels ||
      rays.size(4) != latent[4] * kRayPixels)
    throw Error(ErrorKind::Shape, "camera_conditions",
                fmt::format("are of {} latent frames of {} x {} pixels, and the video is of {} of "
                            "{} x {}: give WanCameraEmbedding its width, height and length",
                            rays.size(2), rays.size(4), rays.size(3), latent[2],
                            latent[4] * kRayPixels, latent[3] * kRayPixels));
  auto tokens = block_.run1({rays}, [&](const Tensors& in) {
    auto frames = in[0].transpose(1, 2).flatten(0, 1).to(conv_.dtype());
    auto x = conv_(at::pixel_unshuffle(frames, kRayPixels));
    for (const auto& layer : residual_) x = layer.second(layer.first(x).relu_()).add_(x);
    return x.flatten(2).transpose(1, 2);  // [B · T, rows · columns, width]
  });
  return tokens.reshape({rays.size(0), -1, tokens.size(2)});
}

}  // namespace distorch::models::wan
