#pragma once
#include <variant>
#include <vector>

#include "distorch/sampling/guidance.h"

namespace distorch::sampling {

/// Guidance whose spread is brought back towards the positive's own, in the arithmetic of velocity
/// models: multiplier 0 is plain guidance, 1 the full correction. Source: Lin et al. 2023; ComfyUI
/// comfy_extras/nodes_model_advanced.py, RescaleCFG.
struct RescaleCfg {
  double multiplier = 0.7;
  bool operator==(const RescaleCfg&) const = default;
};

/// What nodes put in place of plain guidance: comparable values on a MODEL.
using GuidanceStage = std::variant<RescaleCfg>;

/// The guidance that these stages make: the last one that replaces the formula counts, as in
/// ComfyUI. Empty where there is none.
GuidanceFunction guidance_of(const std::vector<GuidanceStage>& stages);

}  // namespace distorch::sampling
