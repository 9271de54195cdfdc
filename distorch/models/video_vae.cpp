#include "distorch/models/video_vae.h"

#include <ATen/ATen.h>

#include <vector>

namespace distorch::models {

using at::Tensor;

namespace {

/// The first frame of each clip, then `then` at a time.
template <class Begin>
Tensor whole(const Tensor& batch, std::int64_t then, Begin begin) {
  if (batch.dim() != 5) return begin()->next(batch, false);  // says what is wrong with it
  std::vector<Tensor> results;
  auto groups = 1 + (batch.size(2) - 1) / then;
  for (const auto& clip : batch.split(1)) {
    auto coding = begin();
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < groups; ++i) {
      auto group = i == 0 ? clip.narrow(2, 0, 1) : clip.narrow(2, 1 + then * (i - 1), then);
      parts.push_back(coding->next(group, i + 1 < groups));
    }
    results.push_back(groups == 1 ? parts[0] : at::cat(parts, 2));
  }
  return (results.size() == 1 ? results[0] : at::cat(results)).contiguous();
}

}  // namespace

Tensor VideoVae::encode_mean(const Tensor& pixels) const {
  return whole(pixels, shape().time_downscale, [this] { return encode_clip(); });
}

Tensor VideoVae::decode_pixels(const Tensor& latent) const {
  return whole(latent, 1, [this] { return decode_clip(); });
}

}  // namespace distorch::models
