#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/sampling/guidance_pipeline.h"

/// The arithmetic of guidance stages, float32, on whole batches [B, C, ...].
namespace distorch::sampling::formulas {

/// The guidance with its part along `cond` weighted, and not longer than the threshold.
at::Tensor projected(const ProjectedGuidance& stage, const at::Tensor& guidance,
                     const at::Tensor& cond);
/// The negative's estimate without what is tangential to both.
at::Tensor damped(const at::Tensor& x, const at::Tensor& cond, const at::Tensor& uncond);
at::Tensor scaled(const FrequencyScaling& stage, const at::Tensor& guidance);

at::Tensor rescaled(const RescaleCfg& stage, const GuidanceStep& step);
at::Tensor renormed(const RenormCfg& stage, const GuidanceStep& step);
at::Tensor matched(const MatchedNorm& stage, const GuidanceStep& step);
at::Tensor by_frame(const FrameGuidance& stage, const GuidanceStep& step);

/// x0 blurred where a map [B, 1, h, w] is above its mean of 1.
at::Tensor blurred(const SelfAttention& stage, const at::Tensor& x0, const at::Tensor& map);

at::Tensor normed(const CfgNorm& stage, const GuidanceStep& step);
at::Tensor zero_star(const GuidanceStep& step);
at::Tensor mahiro(const GuidanceStep& step);

}  // namespace distorch::sampling::formulas
