#include "distorch/sampling/ksampler.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/sampling/batch.h"
#include "distorch/sampling/guidance_pipeline.h"
#include "distorch/sampling/noise.h"
#include "distorch/sampling/step_cache.h"

namespace distorch::sampling {
namespace {

// Finds the step at which a latent stops being finite. On the CPU at once; elsewhere reading a
// number back would make the host wait for every step, so one number a step stays on the device
// until the end.
class FiniteWatch {
 public:
  FiniteWatch(std::string label, std::string sampler, int total)
      : label_(std::move(label)), sampler_(std::move(sampler)), total_(total) {}

  void look(int step, const at::Tensor& latent) {
    const at::Tensor sum = latent.sum();
    if (!latent.is_cpu()) {
      waiting_.push_back({step, sum});
    } else {
      judge(step, sum);
    }
  }

  void finish(const at::Tensor& latent) {
    for (const auto& [step, sum] : waiting_) {
      judge(step, sum);
    }
    judge(total_ - 1, latent.sum());
  }

 private:
  void judge(int step, const at::Tensor& sum) const {
    if (!std::isfinite(sum.item().toDouble())) {
      throw Error(
          ErrorKind::Internal, label_,
          fmt::format(
              "the latent became NaN at step {} of {} (sampler {}); the model's numbers left "
              "the range of its type or the file holds broken weights: try a wider type",
              step + 1, std::max(total_, step + 1), sampler_));
    }
  }

  std::string label_;
  std::string sampler_;
  int total_;
  std::vector<std::pair<int, at::Tensor>> waiting_;
};

bool starts_at_highest_level(const ModelSampling& sampling, float sigma) {
  constexpr double kTolerance = 1e-5;
  const double high = sampling.sigma_max();
  return sigma > high || std::abs(high - sigma) <= kTolerance * std::max<double>(high, sigma);
}

// The noise levels between the steps asked for; none where there is nothing to do.
Sigmas cut(Sigmas sigmas, const KSamplerSettings& settings) {
  const auto last_index = [&] { return static_cast<std::ptrdiff_t>(sigmas.size()) - 1; };
  if (settings.last_step && *settings.last_step < last_index()) {
    sigmas.resize(static_cast<std::size_t>(std::max(*settings.last_step, 0)) + 1);
    if (settings.force_full_denoise) {
      sigmas.back() = 0;
    }
  }
  if (settings.start_step) {
    if (*settings.start_step >= last_index()) {
      return {};
    }
    sigmas.erase(sigmas.begin(), sigmas.begin() + std::max(*settings.start_step, 0));
  }
  return sigmas;
}

void check_latent(const at::Tensor& latent, const std::string& label) {
  if (!latent.defined() || latent.dim() < 4 || latent.dim() > 5 || latent.numel() == 0) {
    throw Error(ErrorKind::Shape, label,
                "the latent needs batch, channels, height and width, none of them 0");
  }
}

// The rule of PerpNegGuider, where a node put its prompt on the model and the guider is plain.
Guider with_perpendicular_negative(const Guider& guider, const GuidanceStages& stages) {
  const auto* stage = last_of<PerpendicularNegative>(stages);
  if (stage == nullptr || guider.rule.kind != GuiderRule::Kind::Cfg) {
    return guider;
  }
  return {{GuiderRule::Kind::PerpNeg, guider.rule.cfg, stage->scale},
          guider.positive,
          guider.negative,
          *stage->empty};
}

// The mask of differential diffusion: cells join in as the timestep falls below their grey value.
std::function<at::Tensor(const at::Tensor&, float)> changing_mask(const GuidanceStages& stages,
                                                                  const Sigmas& sigmas,
                                                                  const ModelSampling& sampling) {
  const auto* stage = last_of<DifferentialMask>(stages);
  if (stage == nullptr) {
    return {};
  }
  const float first = sampling.timestep(sigmas.front());
  const float last = sampling.timestep(std::max(sampling.sigma_min(), sigmas.back()));
  return [=, &sampling, strength = stage->strength](const at::Tensor& mask, float sigma) {
    const float threshold = (sampling.timestep(sigma) - last) / (first - last);
    const at::Tensor binary = (mask >= threshold).to(mask.scalar_type());
    return strength > 0 && strength < 1 ? binary * strength + mask * (1 - strength) : binary;
  };
}

}  // namespace

at::Tensor fix_empty_latent_channels(const X0Model& model, const at::Tensor& given) {
  at::Tensor latent = given;
  if (latent.size(1) != model.latent_channels() && latent.count_nonzero().item().toLong() == 0) {
    latent = repeat_to(latent, model.latent_channels(), 1);
  }
  if (model.latent_dimensions() == 3 && latent.dim() == 4) {
    latent = latent.unsqueeze(2);
  }
  return latent;
}

SampleResult run_sampler(X0Model& model, const SampleRequest& request, const Guider& guider,
                         const StepCallback& on_step) {
  check_latent(request.latent_image, request.label);
  if (request.sigmas.empty()) {
    return {request.latent_image, {}};
  }
  const Sampler& sampler = *request.sampler.sampler;
  const Sigmas& sigmas = request.sigmas;
  const ModelSampling& sampling = model.sampling();
  const at::Tensor start_noise = request.noise.to(model.device());
  at::Tensor latent = request.latent_image.to(model.device());
  if (latent.count_nonzero().item().toLong() > 0) {  // an empty latent is 0 in every scale
    latent = model.process_latent_in(latent);
  }
  at::Tensor mask;
  if (request.noise_mask.defined()) {
    mask = fit_mask(request.noise_mask, latent.sizes()).to(model.device());
  }
  const EncodeContext encode = {start_noise, latent, mask, request.seed};
  const Guider rules = with_perpendicular_negative(guider, request.stages);
  Guidance guidance(request.stages);
  RunState state = {request.stages.empty() ? nullptr : &guidance};
  std::optional<StepCache> cache;
  if (const auto* cached = last_of<CachedSteps>(request.stages)) {
    cache.emplace(*cached, sampling);
    (cached->kind == CachedSteps::Kind::Easy ? state.network_cache : state.result_cache) = &*cache;
  }
  model.expect(sigmas);
  CfgDenoiser guided(
      model, prepare_conditioning(model, rules.positive, rules.negative, encode, rules.third),
      rules.rule, state);
  std::optional<InpaintDenoiser> inpaint;
  if (mask.defined()) {
    const at::Tensor kept_noise =
        sampler.fresh_inpaint_noise
            ? prepare_noise(request.noise, request.seed + 1).to(model.device())
            : start_noise;
    inpaint.emplace(guided, InpaintDenoiser::Kept{mask, latent, kept_noise,
                                                  changing_mask(request.stages, sigmas, sampling)});
  }

  FiniteWatch watch(request.label, std::string(sampler.name), static_cast<int>(sigmas.size()) - 1);
  SamplerContext context;
  context.seed = request.seed;
  context.options = request.sampler.options;
  at::Tensor denoised;
  context.on_step = [&](const StepEvent& event) {
    denoised = event.denoised;
    watch.look(event.step, event.denoised);
    if (on_step) {
      on_step(event);
    }
  };
  const bool highest = starts_at_highest_level(sampling, sigmas.front());
  const at::Tensor x = sampling.noise_scaling(sigmas.front(), start_noise, latent, highest);
  Denoiser& denoiser = inpaint ? static_cast<Denoiser&>(*inpaint) : guided;
  at::Tensor result = sampler.sample(denoiser, x, sigmas, context);
  result = sampling.inverse_noise_scaling(sigmas.back(), result);
  watch.finish(result);
  if (cache) {
    log::info("{}: {} of {} steps were told from earlier ones", request.label, cache->skipped(),
              sigmas.size() - 1);
  }
  const auto as_latent = [&](const at::Tensor& x) {
    return model.process_latent_out(x.to(at::kFloat)).to(at::kCPU);
  };
  return {as_latent(result), denoised.defined() ? as_latent(denoised) : denoised};
}

at::Tensor run_ksampler(X0Model& model, const KSamplerSettings& settings, const Latent& latent,
                        const Conditioning& positive, const Conditioning& negative,
                        const StepCallback& on_step) {
  check_latent(latent.samples, settings.label);
  SampleRequest request;
  request.sampler = {&find_sampler(settings.sampler), {}};
  request.seed = settings.seed;
  request.stages = settings.stages;
  request.label = settings.label;
  request.noise_mask = latent.noise_mask;
  request.latent_image = fix_empty_latent_channels(model, latent.samples);
  request.noise = settings.add_noise
                      ? prepare_noise(request.latent_image, settings.seed, latent.batch_index)
                      : at::zeros_like(request.latent_image, at::TensorOptions(at::kCPU));
  if (request.noise.sizes() != request.latent_image.sizes()) {
    throw Error(ErrorKind::Shape, settings.label,
                fmt::format("the latent has {} items but {} batch indices",
                            request.latent_image.size(0), latent.batch_index.size()));
  }
  request.sigmas = cut(ksampler_sigmas(model.sampling(), settings.sampler, settings.scheduler,
                                       settings.steps, settings.denoise),
                       settings);
  return run_sampler(model, request, {settings.cfg, positive, negative, {}}, on_step).samples;
}

}  // namespace distorch::sampling
