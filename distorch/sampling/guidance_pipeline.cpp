#include "distorch/sampling/guidance_pipeline.h"

#include "distorch/sampling/guidance_formulas.h"

namespace distorch::sampling {
namespace {

// Calls the overload of `what` for the kind of a stage.
template <class... Functions>
struct Overloads : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloads(Functions...) -> Overloads<Functions...>;

bool replaces_formula(const GuidanceStage& stage) {
  return std::holds_alternative<RescaleCfg>(stage) || std::holds_alternative<RenormCfg>(stage) ||
         std::holds_alternative<MatchedNorm>(stage) || std::holds_alternative<FrameGuidance>(stage);
}

bool comes_after(const GuidanceStage& stage) {
  return std::holds_alternative<CfgNorm>(stage) || std::holds_alternative<CfgZeroStar>(stage) ||
         std::holds_alternative<EpsilonScaling>(stage) || std::holds_alternative<Mahiro>(stage) ||
         std::holds_alternative<SkipLayers>(stage) ||
         std::holds_alternative<PerturbedAttention>(stage) ||
         std::holds_alternative<SelfAttention>(stage);
}

bool between(float sigma, float start, float end) { return sigma <= start && sigma >= end; }

at::Tensor without_layers(const SkipLayers& stage, const GuidanceStep& step) {
  if (stage.scale <= 0 || !between(step.sigma, stage.sigma_start, stage.sigma_end)) {
    return step.denoised;
  }
  NetworkChange change;
  change.skipped = stage.blocks;
  const at::Tensor out = step.denoised + (step.cond - step.ask(change)) * stage.scale;
  if (stage.rescaling == 0) {
    return out;
  }
  return out * (step.cond.std() / out.std() * stage.rescaling + (1 - stage.rescaling));
}

at::Tensor perturbed(const PerturbedAttention& stage, const GuidanceStep& step) {
  if (stage.scale == 0) {
    return step.denoised;
  }
  NetworkChange change;
  change.identity_attention = {stage.block};
  return step.denoised + (step.cond - step.ask(change)) * stage.scale;
}

at::Tensor self_attended(const SelfAttention& stage, const GuidanceStep& step) {
  constexpr std::int64_t kSmallest = 5;  // cells that blurring needs on a side
  const bool small = step.x.size(-1) < kSmallest || step.x.size(-2) < kSmallest;
  if (!step.has_uncond || step.x.dim() != 4 || small) {
    return step.denoised;
  }
  const at::Tensor degraded = formulas::blurred(stage, step.uncond, step.attention_map());
  const at::Tensor again = step.ask_negative(degraded + step.x - step.uncond);
  return step.denoised + (degraded - again) * stage.scale;
}

}  // namespace

void Guidance::project(const ProjectedGuidance& stage, Momentum& momentum,
                       GuidanceStep& step) const {
  if (momentum.mean.defined() && step.sigma > momentum.sigma) {
    momentum.mean.reset();  // another run over the levels
  }
  momentum.sigma = step.sigma;
  const at::Tensor plain = step.cond - step.uncond;
  at::Tensor guidance = plain;
  if (stage.momentum != 0) {
    momentum.mean = momentum.mean.defined() ? momentum.mean * stage.momentum + guidance : guidance;
    guidance = momentum.mean;
  }
  step.cond = step.uncond + formulas::projected(stage, guidance, step.cond) + plain / step.cfg;
}

void Guidance::before(GuidanceStep& step) {
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    std::visit(Overloads{
                   [&](const ProjectedGuidance& stage) { project(stage, momenta_[i], step); },
                   [&](const TangentialDamping&) {
                     if (step.has_uncond) {
                       step.uncond = formulas::damped(step.x, step.cond, step.uncond);
                     }
                   },
                   [&](const FrequencyScaling& stage) {
                     if (step.has_uncond) {
                       step.cond = step.uncond + formulas::scaled(stage, step.cond - step.uncond);
                     }
                   },
                   [&](const GuidanceOperation& stage) {
                     step.cond =
                         apply_operation(stage.operation, step.cond - step.uncond) + step.uncond;
                   },
                   [](const auto&) {},
               },
               stages_[i]);
  }
}

void Guidance::combine(GuidanceStep& step) const {
  const at::Tensor plain = step.uncond + (step.cond - step.uncond) * step.cfg;
  step.denoised = plain;
  for (const GuidanceStage& stage : stages_) {
    std::visit(Overloads{
                   [&](const RescaleCfg& one) { step.denoised = formulas::rescaled(one, step); },
                   [&](const RenormCfg& one) { step.denoised = formulas::renormed(one, step); },
                   [&](const MatchedNorm& one) { step.denoised = formulas::matched(one, step); },
                   [&](const FrameGuidance& one) { step.denoised = formulas::by_frame(one, step); },
                   [](const auto&) {},
               },
               stage);
  }
  for (const GuidanceStage& stage : stages_) {
    std::visit(Overloads{
                   [&](const CfgNorm& one) { step.denoised = formulas::normed(one, step); },
                   [&](const CfgZeroStar&) { step.denoised = formulas::zero_star(step); },
                   [&](const EpsilonScaling& one) {
                     step.denoised = step.x - (step.x - step.denoised) / one.factor;
                   },
                   [&](const Mahiro&) { step.denoised = formulas::mahiro(step); },
                   [&](const SkipLayers& one) { step.denoised = without_layers(one, step); },
                   [&](const PerturbedAttention& one) { step.denoised = perturbed(one, step); },
                   [&](const SelfAttention& one) { step.denoised = self_attended(one, step); },
                   [](const auto&) {},
               },
               stage);
  }
}

bool Guidance::changes_result() const {
  for (const GuidanceStage& stage : stages_) {
    if (replaces_formula(stage) || comes_after(stage)) {
      return true;
    }
  }
  return false;
}

double Guidance::cfg_at(float sigma, double cfg) const {
  for (const GuidanceStage& stage : stages_) {
    const auto* other = std::get_if<CfgOverride>(&stage);
    if (other && between(sigma, other->sigma_start, other->sigma_end)) {
      cfg = other->cfg;
    }
  }
  return cfg;
}

const std::set<std::string>* Guidance::skipped_for_negative(float sigma) const {
  const auto* stage = last_of<SkipLayersOfNegative>(stages_);
  return stage && between(sigma, stage->sigma_start, stage->sigma_end) ? &stage->blocks : nullptr;
}

}  // namespace distorch::sampling
