#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/sampling/denoiser.h"

namespace distorch::sampling {

/// What a sampler tells after each evaluation that counts as a step.
struct StepEvent {
  int step;   // from 0
  int total;  // steps planned; dpm_adaptive may take more or fewer
  float sigma;
  const at::Tensor& x;         // the noisy latent of this step
  const at::Tensor& denoised;  // the model's estimate of the clean latent
};
using StepCallback = std::function<void(const StepEvent&)>;

/// What a sampler can be told. Each reads what concerns it; the defaults are those of the KSampler
/// list.
struct SamplerOptions {
  /// Share of fresh noise a step, and a factor on that noise; a sampler's own default where unset.
  std::optional<double> eta;
  std::optional<double> s_noise;
  int lms_order = 4;
  double inner_part = 0.5;  // dpmpp_sde, seeds_2: where in a step the second evaluation lies
  bool second_phi = false;  // seeds_2: weights of second order for both evaluations
  /// dpm_adaptive: the order of its steps, what error it tolerates, and the control of their size.
  struct Adaptive {
    int order = 3;  // 2 or 3
    double relative = 0.05, absolute = 0.0078;
    double first_step = 0.05;
    double proportional = 0, integral = 1, derivative = 0;
    double safety = 0.81;  // steps that would shrink by more are taken again
    bool operator==(const Adaptive&) const = default;
  } adaptive;
  /// er_sde: how many of its three stages, and the noise scale as a power of the noise to signal
  /// ratio in place of its own.
  struct ErSde {
    int stages = 3;
    std::optional<double> power;
    bool operator==(const ErSde&) const = default;
  } er_sde;
  /// sa_solver: between which noise levels it adds noise (unset: from 20 % to 80 % of a run).
  struct SaSolver {
    std::optional<double> noisy_from, noisy_to;
    int predictor_order = 3, corrector_order = 4;
    bool evaluate_twice = false;  // sa_solver_pece always does
    bool simple_order_2 = false;
    bool operator==(const SaSolver&) const = default;
  } sa_solver;
  /// lcm: the factor on noise at the last step (unset: as at the first), and how many standard
  /// deviations of it are kept (0: all).
  struct Lcm {
    std::optional<double> s_noise_end;
    double clip = 0.0;
    bool operator==(const Lcm&) const = default;
  } lcm;
  /// lcm_upscale: how much larger the latent becomes, in how many of the first steps (unset: half
  /// of them), and by what.
  struct Upscale {
    double ratio = 2.0;
    std::optional<int> steps;
    at::Tensor (*resize)(const at::Tensor& latent, std::int64_t width,
                         std::int64_t height) = nullptr;
    bool operator==(const Upscale&) const = default;
  } upscale;
  bool operator==(const SamplerOptions&) const = default;
};

struct SamplerContext {
  std::uint64_t seed = 0;
  SamplerOptions options;
  StepCallback on_step;

  /// Called by samplers: throws Error(Interrupted) when asked to stop, else calls on_step.
  void report(const StepEvent& event) const;
};

/// x: latent with noise of level sigmas[0]; the result has level sigmas.back().
using SamplerFunction = at::Tensor(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                   const SamplerContext& context);

struct Sampler {
  std::string_view name;
  SamplerFunction* sample;
  /// Inpainting re-noises the kept part with noise of its own (seed + 1) in place of the starting
  /// noise.
  bool fresh_inpaint_noise = false;
};

/// Every sampler of ComfyUI's KSampler list, in its order.
const std::vector<Sampler>& samplers();
std::vector<std::string> sampler_names();
/// Error(Usage) that lists the names where it is none of them.
const Sampler& find_sampler(std::string_view name);
/// Another form of CFG++ that is in no list: Euler's step from the guided estimate, along the
/// direction of the difference between x and the negative's. Source: ComfyUI
/// comfy_extras/nodes_advanced_samplers.py.
const Sampler& alternative_euler_cfg_pp();
/// Consistency sampling on a latent that grows; its noise goes on from the run's first draw.
const Sampler& lcm_upscale();

/// What the SAMPLER type of a workflow carries.
struct ChosenSampler {
  const Sampler* sampler;  // static
  SamplerOptions options;
};

}  // namespace distorch::sampling
