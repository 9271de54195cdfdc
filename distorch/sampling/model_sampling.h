#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace distorch::sampling {

/// Noise levels from high to low; the last is 0 where the run ends without noise. float32 on the
/// host.
using Sigmas = std::vector<float>;

/// What a network's output means. Source: ComfyUI comfy/model_sampling.py.
enum class Prediction {
  Eps,  // the noise; x = x0 + sigma * noise
  V,    // velocity between data and noise (SD 2.x 768)
  Edm,  // Karras et al. 2022, with sigma_data
  X0,   // the clean latent itself
  // The clean latent, mixed with x the more the lower the noise (consistency models); eps before.
  Lcm,
  ImgToImg,  // the clean latent, from x as it is
  Flow,      // x = (1 - sigma) * x0 + sigma * noise, output is noise - x0 (SD3, FLUX)
  // The same on levels t = sigma / (sigma + 1); x is x0 + sigma * noise outside the network.
  CosmosFlow,
};

/// A model's noise levels and the arithmetic between noise, latent and network output.
/// Immutable after construction. `sigma` arguments: [B] or one element, on x's device; x [B, C,
/// ...].
class ModelSampling {
 public:
  ModelSampling(Prediction prediction, double sigma_data);
  virtual ~ModelSampling() = default;

  /// The table of noise levels, ascending, float32.
  const Sigmas& sigmas() const { return sigmas_; }
  float sigma_min() const { return sigmas_.front(); }
  float sigma_max() const { return sigmas_.back(); }
  Prediction prediction() const { return prediction_; }
  bool is_flow() const { return prediction_ == Prediction::Flow; }

  /// What the network is told about the noise level, elementwise, same shape and device as `sigma`.
  virtual at::Tensor timestep(const at::Tensor& sigma) const = 0;
  virtual at::Tensor sigma(const at::Tensor& timestep) const = 0;
  /// 0 = start of sampling (all noise), 1 = its end. Below 0 and above 1: a sigma beyond every
  /// step.
  virtual double percent_to_sigma(double percent) const = 0;

  /// One number through timestep() and sigma().
  float timestep(float sigma) const;
  float sigma(float timestep) const;

  /// What the network gets in place of x.
  at::Tensor calculate_input(const at::Tensor& sigma, const at::Tensor& x) const;
  /// The network's output and the x it was asked about (unscaled) -> x0.
  at::Tensor calculate_denoised(const at::Tensor& sigma, const at::Tensor& output,
                                const at::Tensor& x) const;
  /// latent + noise of level `sigma`; max_denoise: the run starts at (or above) the model's highest
  /// level.
  at::Tensor noise_scaling(const at::Tensor& sigma, const at::Tensor& noise,
                           const at::Tensor& latent, bool max_denoise = false) const;
  at::Tensor noise_scaling(float sigma, const at::Tensor& noise, const at::Tensor& latent,
                           bool max_denoise = false) const;
  /// Undoes the scaling of the latent where a run ends with noise left in it.
  at::Tensor inverse_noise_scaling(float sigma, const at::Tensor& latent) const;

 protected:
  Sigmas sigmas_;

 private:
  at::Tensor consistent(const at::Tensor& sigma, const at::Tensor& x0, const at::Tensor& x) const;

  Prediction prediction_;
  double sigma_data_;
};

/// Betas whose square roots are evenly spaced ("linear" in the reference), as all SD 1.x and 2.x
/// use.
struct DiscreteSettings {
  Prediction prediction = Prediction::Eps;
  double linear_start = 0.00085;
  double linear_end = 0.012;
  int timesteps = 1000;
  bool zero_terminal_snr = false;
  /// A model distilled to so many of the timesteps knows only these, evenly spaced from the last;
  /// 0: all.
  int distilled_timesteps = 0;
};
std::shared_ptr<const ModelSampling> discrete_sampling(const DiscreteSettings& settings = {});

/// Noise levels evenly spaced in log sigma; prediction is Edm, V or Eps, timestep is log(sigma)/4.
std::shared_ptr<const ModelSampling> continuous_edm_sampling(Prediction prediction,
                                                             double sigma_min, double sigma_max,
                                                             double sigma_data);

/// The same levels with prediction V; timestep is the angle atan(sigma) · 2/pi.
std::shared_ptr<const ModelSampling> continuous_v_sampling(double sigma_min, double sigma_max);

/// SD3 and kin: sigma = shift * t / (1 + (shift - 1) * t), timestep = sigma * multiplier.
std::shared_ptr<const ModelSampling> flow_sampling(double shift, double multiplier = 1000.0);

/// Rectified flow on the levels of continuous_edm_sampling; timestep is sigma / (sigma + 1).
std::shared_ptr<const ModelSampling> cosmos_flow_sampling(double sigma_min, double sigma_max);

/// Stable Cascade: noise levels of a cosine schedule whose signal-to-noise ratio is divided by
/// shift squared; prediction Eps, timestep 0..1.
std::shared_ptr<const ModelSampling> cascade_sampling(double shift);

/// FLUX: sigma = e^shift / (e^shift + 1/t - 1), timestep = sigma.
std::shared_ptr<const ModelSampling> flux_sampling(double shift = 1.15);

}  // namespace distorch::sampling
