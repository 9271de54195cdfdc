#pragma once
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/latent_operations.h"

/// What nodes change about how a MODEL is sampled: comparable values, in the order of the nodes.
/// Those of one group run in that order; a formula that replaces the plain one replaces the one
/// before it too, as in ComfyUI. The classes that carry them out are Guidance (guidance_pipeline.h)
/// and StepCache (step_cache.h).
namespace distorch::sampling {

// --- before the formula

/// Adaptive projected guidance (arXiv:2410.02416).
struct ProjectedGuidance {
  double parallel = 1.0;        // weight of the part along the positive's estimate
  double norm_threshold = 5.0;  // 0: none
  double momentum = 0.0;
  bool operator==(const ProjectedGuidance&) const = default;
};
/// The negative keeps only what both estimates have in common (arXiv:2503.18137).
struct TangentialDamping {
  bool operator==(const TangentialDamping&) const = default;
};
/// Low and high frequencies of the guidance get a factor each (FreSca).
struct FrequencyScaling {
  double low = 1.0, high = 1.25;
  std::int64_t cutoff = 20;  // frequencies from the middle that count as low
  bool operator==(const FrequencyScaling&) const = default;
};
/// A latent operation on the difference of both estimates.
struct GuidanceOperation {
  LatentOperation operation;
  bool operator==(const GuidanceOperation&) const = default;
};

// --- in place of the formula

/// Guidance whose spread is brought back towards the positive's own, in the arithmetic of velocity
/// models: multiplier 0 is plain guidance, 1 the full correction. Source: Lin et al. 2023; ComfyUI
/// comfy_extras/nodes_model_advanced.py, RescaleCFG.
struct RescaleCfg {
  double multiplier = 0.7;
  bool operator==(const RescaleCfg&) const = default;
};
/// Guidance only below a noise level, its length at most `most` times the positive's (Lumina 2).
struct RenormCfg {
  double below_sigma = 100.0;
  double most = 1.0;  // 0: any
  bool operator==(const RenormCfg&) const = default;
};

/// Every cell of the guided noise is as long as the positive's own: shorter ones grow too.
struct MatchedNorm {
  double strength = 1.0;  // below 1: mixed with plain guidance
  bool operator==(const MatchedNorm&) const = default;
};
/// Every picture of the batch (frame of a video) has a scale of its own, from `least` to the run's.
struct FrameGuidance {
  double least = 1.0;
  bool triangle = false;  // up to the middle and down again
  bool operator==(const FrameGuidance&) const = default;
};

// --- after the formula

/// Every cell is at most as long as the positive's own.
struct CfgNorm {
  double strength = 1.0;
  bool operator==(const CfgNorm&) const = default;
};
/// The negative is scaled to fit the positive best (arXiv:2503.18886).
struct CfgZeroStar {
  bool operator==(const CfgZeroStar&) const = default;
};
/// Less noise is removed than predicted (arXiv:2308.15321).
struct EpsilonScaling {
  double factor = 1.005;
  bool operator==(const EpsilonScaling&) const = default;
};
/// More of the positive's direction where it and the negative's disagree.
struct Mahiro {
  bool operator==(const Mahiro&) const = default;
};
/// Away from what the network says without some of its blocks. Names as in models/patches.h.
struct SkipLayers {
  std::set<std::string> blocks;
  double scale = 3.0;
  float sigma_start = 0, sigma_end = 0;  // counts between these
  double rescaling = 0.0;                // of the spread, towards the positive's
  bool operator==(const SkipLayers&) const = default;
};
/// The negative itself is computed without some blocks.
struct SkipLayersOfNegative {
  std::set<std::string> blocks;
  float sigma_start = 0, sigma_end = 0;
  bool operator==(const SkipLayersOfNegative&) const = default;
};
/// Away from what the network says where the places that get most attention are blurred
/// (arXiv:2210.00939).
struct SelfAttention {
  double scale = 0.5;
  double blur = 2.0;  // standard deviation in cells
  bool operator==(const SelfAttention&) const = default;
};
/// Away from what the network says where a block's self-attention gives its values as they are
/// (arXiv:2403.17377).
struct PerturbedAttention {
  std::string block = "middle_block";
  double scale = 3.0;
  bool operator==(const PerturbedAttention&) const = default;
};

// --- beside the formula

/// Another scale between two noise levels.
struct CfgOverride {
  double cfg = 1.0;
  float sigma_start = 0, sigma_end = 0;
  bool operator==(const CfgOverride&) const = default;
};

/// The rule of PerpNegGuider with this as empty prompt, where a run has the plain rule.
struct PerpendicularNegative {
  std::shared_ptr<const Conditioning> empty;
  double scale = 1.0;
  bool operator==(const PerpendicularNegative&) const = default;
};
/// A noise mask's grey values say when a cell begins to change (Levin, Fried 2023).
struct DifferentialMask {
  double strength = 1.0;  // below 1: mixed with the mask as it is
  bool operator==(const DifferentialMask&) const = default;
};
/// Steps whose result is told from the one before while little changes (arXiv:2507.02860). Easy:
/// the network's output; lazy: the guided estimate.
struct CachedSteps {
  enum class Kind { Easy, Lazy };
  Kind kind = Kind::Easy;
  double threshold = 0.2;  // of the relative change that adds up until a step is computed again
  double start_percent = 0.15, end_percent = 0.95;
  bool verbose = false;
  bool operator==(const CachedSteps&) const = default;
};

using GuidanceStage =
    std::variant<ProjectedGuidance, TangentialDamping, FrequencyScaling, GuidanceOperation,
                 RescaleCfg, RenormCfg, MatchedNorm, FrameGuidance, CfgOverride, CfgNorm,
                 CfgZeroStar, EpsilonScaling, Mahiro, SkipLayers, SkipLayersOfNegative,
                 PerturbedAttention, SelfAttention, PerpendicularNegative, DifferentialMask,
                 CachedSteps>;
using GuidanceStages = std::vector<GuidanceStage>;

/// The last stage of a kind; null where there is none.
template <class Stage>
const Stage* last_of(const GuidanceStages& stages) {
  const Stage* found = nullptr;
  for (const GuidanceStage& stage : stages) {
    if (const auto* one = std::get_if<Stage>(&stage)) {
      found = one;
    }
  }
  return found;
}

}  // namespace distorch::sampling
