#include "distorch/sampling/guidance_stages.h"

namespace distorch::sampling {
namespace {

// Spread of every item over all its numbers: [B, C, ...] -> [B, 1, ...].
at::Tensor spread(const at::Tensor& x) {
  std::vector<std::int64_t> dims;
  for (std::int64_t d = 1; d < x.dim(); ++d) {
    dims.push_back(d);
  }
  return at::std(x, dims, /*unbiased=*/true, /*keepdim=*/true);
}

at::Tensor rescaled(const RescaleCfg& stage, const GuidanceInputs& in) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(in.x.dim()), 1);
  shape[0] = in.sigma.size(0);
  const at::Tensor sigma = in.sigma.view(shape);
  const at::Tensor total = sigma * sigma + 1.0;
  const at::Tensor x = in.x / total;
  // The reference passes noises, x - x0, and rounds there: at high noise levels that can be seen.
  const auto rounded = [&](const at::Tensor& x0) { return in.x - (in.x - x0); };
  // A clean latent as the velocity that would have led to it.
  const auto velocity = [&](const at::Tensor& x0) {
    return (x - rounded(x0)) * total.sqrt() / sigma;
  };
  const at::Tensor cond = velocity(in.cond);
  const at::Tensor uncond = velocity(in.uncond);
  const at::Tensor guided = uncond + (cond - uncond) * in.cfg;
  const at::Tensor corrected = guided * (spread(cond) / spread(guided));
  const at::Tensor mixed = corrected * stage.multiplier + guided * (1.0 - stage.multiplier);
  return rounded(x - mixed * sigma / total.sqrt());
}

}  // namespace

GuidanceFunction guidance_of(const std::vector<GuidanceStage>& stages) {
  if (stages.empty()) {
    return {};
  }
  return [stage = stages.back()](const GuidanceInputs& in) {
    return std::visit([&](const RescaleCfg& rescale) { return rescaled(rescale, in); }, stage);
  };
}

}  // namespace distorch::sampling
