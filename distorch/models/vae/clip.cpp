#include "distorch/models/vae/clip.h"

#include <ATen/ATen.h>

#include "distorch/base/run_token.h"

namespace distorch::models::vae {

using at::Tensor;

namespace {

/// Results of clips, filled group by group; sizes are known with the first.
class Filled {
 public:
  Filled(std::int64_t clips, std::int64_t frames) : clips_(clips), frames_(frames) {}

  void add(const Tensor& group) {
    if (!all_.defined()) {
      auto sizes = group.sizes().vec();
      sizes[0] = clips_, sizes[2] = frames_;
      all_ = at::empty(sizes, at::kFloat);
    }
    auto clip = next_ / frames_, first = next_ % frames_;
    all_.narrow(0, clip, 1).narrow(2, first, group.size(2)).copy_(group);
    next_ += group.size(2);
  }
  Tensor result() const { return all_; }

 private:
  std::int64_t clips_, frames_, next_ = 0;
  Tensor all_;
};

const VideoVae& of_video(const VaeNetwork& vae) { return dynamic_cast<const VideoVae&>(vae); }

}  // namespace

std::int64_t decode_groups(const VaeShape& shape, std::int64_t latent_frames) {
  return shape.whole_clips ? 1 : latent_frames;
}
std::int64_t encode_groups(const VaeShape& shape, std::int64_t frames) {
  return shape.whole_clips ? 1 : 1 + (frames - 1) / shape.time_downscale;
}

void each_decoded(const VaeNetwork& vae, const Tensor& latent, at::Device device,
                  const std::function<void(const Tensor& pixels)>& take) {
  auto shape = vae.shape();
  if (shape.whole_clips) return take(vae.decode_pixels(latent.to(device, at::kFloat)));
  auto coding = of_video(vae).decode_clip();
  for (std::int64_t i = 0, groups = decode_groups(shape, latent.size(2)); i < groups; ++i) {
    throw_if_interrupted();
    take(coding->next(latent.narrow(2, i, 1).to(device, at::kFloat), i + 1 < groups));
  }
}

void each_encoded(const VaeNetwork& vae, const Tensor& frames, at::Device device,
                  const std::function<void(const Tensor& latent)>& take) {
  auto shape = vae.shape();
  if (shape.whole_clips) return take(vae.encode_mean(frames.to(device, at::kFloat).contiguous()));
  auto coding = of_video(vae).encode_clip();
  auto each = shape.time_downscale, groups = encode_groups(shape, frames.size(2));
  for (std::int64_t i = 0; i < groups; ++i) {
    throw_if_interrupted();
    auto group = i == 0 ? frames.narrow(2, 0, 1) : frames.narrow(2, 1 + each * (i - 1), each);
    take(coding->next(group.to(device, at::kFloat).contiguous(), i + 1 < groups));
  }
}

Tensor decode_clips(const VaeNetwork& vae, const Tensor& latent, at::Device device) {
  Filled all(latent.size(0), 1 + (latent.size(2) - 1) * vae.shape().time_downscale);
  for (const auto& clip : latent.split(1))
    each_decoded(vae, clip, device, [&](const Tensor& pixels) { all.add(pixels); });
  return all.result();
}

Tensor encode_clips(const VaeNetwork& vae, const Tensor& frames, at::Device device) {
  Filled all(frames.size(0), 1 + (frames.size(2) - 1) / vae.shape().time_downscale);
  for (const auto& clip : frames.split(1))
    each_encoded(vae, clip, device, [&](const Tensor& latent) { all.add(latent); });
  return all.result();
}

}  // namespace distorch::models::vae
