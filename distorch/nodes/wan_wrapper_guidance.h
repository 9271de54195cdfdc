#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/nodes/wan_wrapper.h"

/// The arithmetic of WanVideoSampler on velocities [1, C, T, h, w] float32. Source:
/// ComfyUI-WanVideoWrapper, nodes_sampler.py and utils.py.
namespace distorch::nodes::wan_wrapper {

/// What both passes come to: u + cfg · (p - u), with what `how` changes about it.
at::Tensor guided(const at::Tensor& positive, const at::Tensor& negative, double cfg,
                  const Experimental& how);

/// u without what is tangential to both, channel by channel: of the matrix of rows p and u only the
/// first singular direction is left. Source: TCFG (arXiv:2503.18137).
at::Tensor without_tangent(const at::Tensor& positive, const at::Tensor& negative);

/// Frequencies of height and width: those within the cutoff around the middle times `scale_low`,
/// the others times `scale_high`. Source: FreSca (arXiv:2504.02154).
at::Tensor filtered(const at::Tensor& x, const Experimental& how);

/// The velocity as if the data were less spread; t 0..1. Source: temporal score rescaling
/// (arXiv:2510.01184).
at::Tensor rescaled_score(const at::Tensor& velocity, const at::Tensor& x, double t,
                          const Experimental& how);

}  // namespace distorch::nodes::wan_wrapper
