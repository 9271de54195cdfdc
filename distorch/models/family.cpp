#include "distorch/models/family.h"

namespace distorch::models {

namespace {

/// Values by channel against [B, C, ...].
at::Tensor by_channel(const std::vector<double>& values, const at::Tensor& latent) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(latent.dim()), 1);
  shape[1] = static_cast<std::int64_t>(values.size());
  return at::tensor(values, at::kFloat).to(latent.device()).view(shape);
}

}  // namespace

at::Tensor LatentFormat::into_network(const at::Tensor& latent) const {
  if (!mean.empty())
    return (latent - by_channel(mean, latent)) * scale_factor / by_channel(deviation, latent);
  return (shift == 0 ? latent : latent - shift) * scale_factor;
}

at::Tensor LatentFormat::out_of_network(const at::Tensor& latent) const {
  if (!mean.empty())
    return latent * by_channel(deviation, latent) / scale_factor + by_channel(mean, latent);
  auto scaled = latent / scale_factor;
  return shift == 0 ? scaled : scaled + shift;
}

}  // namespace distorch::models
