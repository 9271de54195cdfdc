#include "distorch/sampling/guidance_formulas.h"

namespace distorch::sampling::formulas {
namespace {

std::vector<std::int64_t> all_but_batch(const at::Tensor& x) {
  std::vector<std::int64_t> dims;
  for (std::int64_t d = 1; d < x.dim(); ++d) {
    dims.push_back(d);
  }
  return dims;
}

// Spread of every item over all its numbers: [B, C, ...] -> [B, 1, ...].
at::Tensor spread(const at::Tensor& x) {
  return at::std(x, all_but_batch(x), /*unbiased=*/true, /*keepdim=*/true);
}

at::Tensor length(const at::Tensor& x, at::IntArrayRef dims) {
  return at::linalg_vector_norm(x, 2, dims, /*keepdim=*/true);
}

// Channels, height and width: what one guidance vector consists of.
constexpr std::array<std::int64_t, 3> kPicture = {-1, -2, -3};

at::Tensor signed_root(const at::Tensor& x) { return x.abs().sqrt() * x.sign(); }

}  // namespace

at::Tensor projected(const ProjectedGuidance& stage, const at::Tensor& given,
                     const at::Tensor& cond) {
  constexpr double kLittle = 1e-12;
  at::Tensor guidance = given;
  if (stage.norm_threshold > 0) {
    const at::Tensor ratio = stage.norm_threshold / length(guidance, kPicture);
    guidance = guidance * ratio.clamp_max(1.0);
  }
  const at::Tensor direction = cond / length(cond, kPicture).clamp_min(kLittle);
  const at::Tensor parallel = (guidance * direction).sum(kPicture, true) * direction;
  return guidance - parallel + parallel * stage.parallel;
}

at::Tensor damped(const at::Tensor& x, const at::Tensor& cond, const at::Tensor& uncond) {
  const auto flat = [&](const at::Tensor& x0) { return (x - x0).flatten(1).unsqueeze(1); };
  const at::Tensor negative = flat(uncond);
  const at::Tensor both = at::cat({negative, flat(cond)}, 1);  // [B, 2, N]
  const at::Tensor common = std::get<2>(at::linalg_svd(both, false)).narrow(1, 0, 1);
  const at::Tensor kept = at::matmul(negative, common.transpose(-2, -1)) * common;
  return x - kept.view_as(uncond);
}

at::Tensor scaled(const FrequencyScaling& stage, const at::Tensor& guidance) {
  constexpr std::array<std::int64_t, 2> kPlane = {-2, -1};
  at::Tensor frequencies = at::fft_fftshift(at::fft_fftn(guidance, std::nullopt, kPlane), kPlane);
  at::Tensor factors = at::full(guidance.sizes(), stage.high, guidance.options());
  at::Tensor low = factors;
  for (std::int64_t d = 2; d < low.dim(); ++d) {
    const std::int64_t middle = guidance.size(d) / 2;
    const std::int64_t reach = std::min(stage.cutoff, middle);
    low = low.narrow(d, middle - reach, 2 * reach);
  }
  low.fill_(stage.low);
  return at::real(
      at::fft_ifftn(at::fft_ifftshift(frequencies * factors, kPlane), std::nullopt, kPlane));
}

at::Tensor rescaled(const RescaleCfg& stage, const GuidanceStep& step) {
  const at::Tensor sigma = at::scalar_tensor(step.sigma, step.x.options().dtype(at::kFloat));
  const at::Tensor total = sigma * sigma + 1.0;
  const at::Tensor x = step.x / total;
  // The reference passes noises, x - x0, and rounds there: at high noise levels that can be seen.
  const auto rounded = [&](const at::Tensor& x0) { return step.x - (step.x - x0); };
  // A clean latent as the velocity that would have led to it.
  const auto velocity = [&](const at::Tensor& x0) {
    return (x - rounded(x0)) * total.sqrt() / sigma;
  };
  const at::Tensor cond = velocity(step.cond);
  const at::Tensor uncond = velocity(step.uncond);
  const at::Tensor guided = uncond + (cond - uncond) * step.cfg;
  const at::Tensor corrected = guided * (spread(cond) / spread(guided));
  const at::Tensor mixed = corrected * stage.multiplier + guided * (1.0 - stage.multiplier);
  return rounded(x - mixed * sigma / total.sqrt());
}

at::Tensor renormed(const RenormCfg& stage, const GuidanceStep& step) {
  at::Tensor out = step.cond;
  if (step.sigma < static_cast<float>(stage.below_sigma)) {
    out = step.uncond + (step.cond - step.uncond) * step.cfg;
    if (stage.most > 0) {
      const auto dims = all_but_batch(out);
      const at::Tensor most = length(step.cond, dims) * stage.most;
      const at::Tensor has = length(out, dims);
      out = at::where(has >= most, out * (most / has), out);
    }
  }
  return step.x - (step.x - out);
}

at::Tensor matched(const MatchedNorm& stage, const GuidanceStep& step) {
  constexpr double kLittle = 1e-12;
  constexpr std::array<std::int64_t, 1> channels = {1};
  const at::Tensor cond = step.x - step.cond;
  const at::Tensor uncond = step.x - step.uncond;
  const at::Tensor guided = uncond + (cond - uncond) * step.cfg;
  const at::Tensor has = length(guided, channels);
  const at::Tensor ratio = length(cond, channels) / has.clamp_min(kLittle);
  const at::Tensor noise = guided * at::where(has > 0, ratio, at::ones_like(has));
  return step.x - (noise * stage.strength + guided * (1.0 - stage.strength));
}

at::Tensor by_frame(const FrameGuidance& stage, const GuidanceStep& step) {
  const std::int64_t count = step.x.size(0);
  const auto options = step.x.options().dtype(at::kFloat);
  at::Tensor scale = at::linspace(stage.least, step.cfg, count, options);
  if (stage.triangle) {
    const at::Tensor part = at::linspace(0, 1, count, options);
    scale = 2 * (part - (part + 0.5).floor()).abs() * (step.cfg - stage.least) + stage.least;
  }
  std::vector<std::int64_t> shape(static_cast<std::size_t>(step.x.dim()), 1);
  shape[0] = count;
  // The reference passes noises, x - x0.
  const at::Tensor cond = step.x - step.cond;
  const at::Tensor uncond = step.x - step.uncond;
  return step.x - (uncond + scale.view(shape) * (cond - uncond));
}

at::Tensor blurred(const SelfAttention& stage, const at::Tensor& x0, const at::Tensor& map) {
  constexpr std::int64_t kSize = 9, kReach = kSize / 2;
  const auto options = x0.options().dtype(at::kFloat);
  at::Tensor line = at::linspace(-kReach, kReach, kSize, options);
  // No blur at all is a bell of no width.
  line = stage.blur > 0 ? (-0.5 * (line / stage.blur).square()).exp() : (line == 0).to(at::kFloat);
  line = line / line.sum();
  const std::int64_t channels = x0.size(1);
  const at::Tensor kernels =
      (line.unsqueeze(1) * line.unsqueeze(0)).expand({channels, 1, kSize, kSize});
  const at::Tensor padded = at::reflection_pad2d(x0, {kReach, kReach, kReach, kReach});
  const at::Tensor soft = at::conv2d(padded, kernels, {}, at::IntArrayRef{1}, at::IntArrayRef{0},
                                     at::IntArrayRef{1}, channels);
  const at::Tensor marked = (map > 1.0).to(at::kFloat);
  const at::Tensor mask = at::upsample_nearest2d(marked, at::IntArrayRef{x0.size(2), x0.size(3)});
  return soft * mask + x0 * (1.0 - mask);
}

at::Tensor normed(const CfgNorm& stage, const GuidanceStep& step) {
  constexpr double kLittle = 1e-8;
  constexpr std::array<std::int64_t, 1> channels = {1};
  const at::Tensor ratio =
      length(step.cond, channels) / (length(step.denoised, channels) + kLittle);
  return step.denoised * ratio.clamp(0.0, 1.0) * stage.strength;
}

at::Tensor zero_star(const GuidanceStep& step) {
  constexpr double kLittle = 1e-8;
  const auto dims = all_but_batch(step.x);
  const at::Tensor positive = step.x - step.cond;
  const at::Tensor negative = step.x - step.uncond;
  const at::Tensor fit =
      (positive * negative).sum(dims, true) / (negative.square().sum(dims, true) + kLittle);
  return step.denoised + step.uncond * (fit - 1.0) + step.uncond * (1.0 - fit) * step.cfg;
}

at::Tensor mahiro(const GuidanceStep& step) {
  const at::Tensor leap = step.cond * step.cfg;
  const at::Tensor merged = signed_root((leap + step.denoised) / 2);
  const at::Tensor alike =
      at::cosine_similarity(signed_root(step.uncond * step.cfg), merged).mean();
  const at::Tensor weight = 2 * (alike + 1);
  return (step.denoised * weight + leap * (4 - weight)) / 4;
}

}  // namespace distorch::sampling::formulas
