#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/sampling/model_sampling.h"

/// Noise levels that a workflow makes and edits by itself. All functions give new lists; highest
/// level first. Error(Usage) where the numbers leave the range of a formula.
/// Source: ComfyUI comfy_extras/nodes_custom_sampler.py, comfy/k_diffusion/sampling.py.
namespace distorch::sampling {

struct SigmaRange {
  double max = 14.614642;
  double min = 0.0291675;
};

/// Karras et al. 2022, equation 5; then 0.
Sigmas karras_sigmas(int steps, SigmaRange range, double rho = 7.0);
/// Evenly spaced in log sigma; then 0.
Sigmas exponential_sigmas(int steps, SigmaRange range);
/// The same, with the positions along the way to the power `rho`; then 0.
Sigmas polyexponential_sigmas(int steps, SigmaRange range, double rho);
/// Quantiles of a Laplace distribution of log sigma around `mu`, clamped to the range; without 0.
Sigmas laplace_sigmas(int steps, SigmaRange range, double mu, double beta);
/// The variance-preserving process with rate beta_min + beta_d · t, t from 1 to eps_s; then 0.
Sigmas vp_sigmas(int steps, double beta_d, double beta_min, double eps_s);
/// A model's levels at the quantiles of a Beta distribution of timesteps, repeats left out; then 0.
Sigmas beta_sigmas(const ModelSampling& model, int steps, double alpha, double beta);
/// Every hundredth timestep of a model distilled to ten; `denoise` skips the first ones; then 0.
Sigmas turbo_sigmas(const ModelSampling& model, int steps, double denoise);
/// SD3's time shift with an exponent that grows with the latent's tokens; `terminal` > 0 stretches
/// the levels so that the last above 0 is it.
struct LtxvShift {
  double max_shift = 2.05, base_shift = 0.95;  // at 4096 and at 1024 tokens
  std::int64_t tokens = 4096;
  double terminal = 0.1;
  bool stretch = true;
};
Sigmas ltxv_sigmas(int steps, const LtxvShift& shift);

/// FLUX.2: the exponent of the shift grows with the picture (in tokens of 16 x 16 pixels) and, for
/// small ones, with the number of steps.
Sigmas flux2_sigmas(int steps, std::int64_t width, std::int64_t height);

/// Levels that others found to be good for a family, interpolated in log sigma to another number of
/// steps. denoise < 1: only the last of them; 0: none. The last level is 0.
enum class Tabled { AlignYourSteps, OptimalSteps };
Sigmas tabled_sigmas(Tabled table, std::string_view family, int steps, double denoise);
/// Geometry-inspired time scheduling (Chen et al. 2024): `coefficient` 0.80, 0.85 ... 1.50.
Sigmas gits_sigmas(double coefficient, int steps, double denoise);

/// [0, step] and [step, end]; a step beyond the end gives all and nothing.
std::pair<Sigmas, Sigmas> split_sigmas(const Sigmas& sigmas, std::size_t step);
/// The same, where the second has `denoise` of the steps.
std::pair<Sigmas, Sigmas> split_sigmas_by_denoise(const Sigmas& sigmas, double denoise);
/// Backwards, from noise of almost no level: for finding the noise that an image comes from.
Sigmas flip_sigmas(Sigmas sigmas);
enum class Spacing { Linear, Cosine, Sine };
/// `steps` steps in place of each one that starts between the two levels.
Sigmas extend_sigmas(const Sigmas& sigmas, int steps, double start_at, double end_at,
                     Spacing spacing);
/// The numbers of a text, whatever stands between them.
Sigmas parse_sigmas(std::string_view text);

}  // namespace distorch::sampling
