#include "distorch/sampling/model_sampling.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"

namespace distorch::sampling {
namespace {

// A sigma per batch item against [B, C, ...]: [B, 1, ...]; a single sigma stays a scalar.
at::Tensor against(const at::Tensor& sigma, std::int64_t dims) {
  if (sigma.numel() == 1) {
    return sigma.reshape({});
  }
  std::vector<std::int64_t> shape(static_cast<std::size_t>(dims), 1);
  shape[0] = sigma.size(0);
  return sigma.reshape(shape);
}

Sigmas to_sigmas(const at::Tensor& table) {
  at::Tensor flat = table.to(at::kFloat).contiguous();
  const float* data = flat.const_data_ptr<float>();
  return Sigmas(data, data + flat.numel());
}

// A percentage beyond every step: below any sigma at the end, above any at the start.
constexpr double kBeforeEverything = 999999999.9;

// The last level of a schedule rescaled to zero terminal SNR must stay finite; this is the
// reference's squared alpha there.
constexpr double kLastAlphaSquared = 4.8973451890853435e-08;

at::Tensor rescaled_to_zero_snr(const at::Tensor& sigmas) {
  at::Tensor alpha = (1 / (sigmas * sigmas + 1)).sqrt();
  const at::Tensor first = alpha[0].clone();
  const at::Tensor last = alpha[-1].clone();
  alpha = (alpha - last) * (first / (first - last));
  at::Tensor squared = alpha * alpha;
  squared[-1] = kLastAlphaSquared;
  return ((1 - squared) / squared).sqrt();
}

class DiscreteSampling : public ModelSampling {
 public:
  explicit DiscreteSampling(const DiscreteSettings& settings)
      : ModelSampling(settings.prediction, 1.0) {
    at::Tensor root = at::linspace(std::sqrt(settings.linear_start), std::sqrt(settings.linear_end),
                                   settings.timesteps, at::kDouble);
    at::Tensor alpha = at::cumprod(1.0 - root * root, 0);
    at::Tensor sigmas = ((1 - alpha) / alpha).sqrt();
    if (settings.zero_terminal_snr) {
      sigmas = rescaled_to_zero_snr(sigmas);
    }
    if (settings.distilled_timesteps > 0) {
      stride_ = settings.timesteps / settings.distilled_timesteps;
      const std::int64_t first =
          settings.timesteps - 1 - (settings.distilled_timesteps - 1) * stride_;
      const at::Tensor kept = at::arange(first, settings.timesteps, stride_, at::kLong);
      sigmas = sigmas.to(at::kFloat).index_select(0, kept);
    }
    sigmas_ = to_sigmas(sigmas);
    log_sigmas_ = sigmas.log().to(at::kFloat);
  }
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override {
    at::Tensor wanted = sigma.log().to(at::kCPU, at::kFloat).reshape({1, -1});
    at::Tensor distance = (wanted - log_sigmas_.unsqueeze(1)).abs();
    const at::Tensor index = distance.argmin(0) * stride_ + (stride_ - 1);
    return index.reshape(sigma.sizes()).to(sigma.device());
  }

  at::Tensor sigma(const at::Tensor& timestep) const override {
    at::Tensor t = timestep.to(at::kCPU, at::kFloat);
    t = ((t - static_cast<double>(stride_ - 1)) / static_cast<double>(stride_))
            .clamp(0, log_sigmas_.size(0) - 1.0);
    at::Tensor flat = t.reshape({-1});
    at::Tensor low = log_sigmas_.index_select(0, flat.floor().to(at::kLong));
    at::Tensor high = log_sigmas_.index_select(0, flat.ceil().to(at::kLong));
    at::Tensor weight = flat.frac();
    return ((1 - weight) * low + weight * high)
        .exp()
        .reshape(timestep.sizes())
        .to(timestep.device());
  }

  double percent_to_sigma(double percent) const override {
    if (percent <= 0.0) {
      return kBeforeEverything;
    }
    if (percent >= 1.0) {
      return 0.0;
    }
    return ModelSampling::sigma(static_cast<float>((1.0 - percent) * 999.0));
  }

 private:
  at::Tensor log_sigmas_;    // [N] float32, rounded from float64 logarithms
  std::int64_t stride_ = 1;  // timesteps from one level to the next
};

class ContinuousEdmSampling : public ModelSampling {
 public:
  ContinuousEdmSampling(Prediction prediction, double sigma_min, double sigma_max,
                        double sigma_data)
      : ModelSampling(prediction, sigma_data) {
    sigmas_ =
        to_sigmas(at::linspace(std::log(sigma_min), std::log(sigma_max), 1000, at::kFloat).exp());
  }
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override { return sigma.log() * 0.25; }
  at::Tensor sigma(const at::Tensor& timestep) const override { return (timestep / 0.25).exp(); }
  double percent_to_sigma(double percent) const override {
    if (percent <= 0.0) {
      return kBeforeEverything;
    }
    if (percent >= 1.0) {
      return 0.0;
    }
    const double low = std::log(static_cast<double>(sigma_min()));
    const double high = std::log(static_cast<double>(sigma_max()));
    return std::exp((high - low) * (1.0 - percent) + low);
  }
};

class ContinuousVSampling : public ContinuousEdmSampling {
 public:
  ContinuousVSampling(double sigma_min, double sigma_max)
      : ContinuousEdmSampling(Prediction::V, sigma_min, sigma_max, 1.0) {}
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override { return sigma.atan() / kPi * 2; }
  at::Tensor sigma(const at::Tensor& timestep) const override { return (timestep * kPi / 2).tan(); }

 private:
  static constexpr double kPi = 3.14159265358979323846;
};

class CosmosFlowSampling : public ContinuousEdmSampling {
 public:
  CosmosFlowSampling(double sigma_min, double sigma_max)
      : ContinuousEdmSampling(Prediction::CosmosFlow, sigma_min, sigma_max, 1.0) {}
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override { return sigma / (sigma + 1); }
  at::Tensor sigma(const at::Tensor& timestep) const override {
    const double highest = sigma_max();
    return at::where(timestep >= highest / (highest + 1), highest, timestep / (1 - timestep));
  }
};

// Source: ComfyUI comfy/model_sampling.py, StableCascadeSampling; Nichol and Dhariwal 2021 for the
// cosine schedule.
class CascadeSampling : public ModelSampling {
 public:
  explicit CascadeSampling(double shift)
      : ModelSampling(Prediction::Eps, 1.0),
        shift_(shift),
        first_(signal_at(at::zeros({}, at::kFloat)).item().toDouble()) {
    constexpr int kLevels = 10000;
    sigmas_ = to_sigmas(sigma(at::arange(1, kLevels + 1, at::kLong) / kLevels));
  }
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override {
    const at::Tensor signal = 1 / (sigma * sigma + 1);
    return (signal * first_).sqrt().acos() / (kPi / 2) * (1 + kOffset) - kOffset;
  }
  at::Tensor sigma(const at::Tensor& timestep) const override {
    at::Tensor signal = signal_at(timestep) / first_;
    if (shift_ != 1.0) {
      signal = ((signal / (1 - signal)).log() - 2 * std::log(shift_)).sigmoid();
    }
    signal = signal.clamp(kLeastSignal, 1 - kLeastSignal);
    return ((1 - signal) / signal).sqrt();
  }
  double percent_to_sigma(double percent) const override {
    if (percent <= 0.0) {
      return kBeforeEverything;
    }
    return percent >= 1.0 ? 0.0 : ModelSampling::sigma(static_cast<float>(1.0 - percent));
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;
  static constexpr double kOffset = 8e-3;
  static constexpr double kLeastSignal = 1e-4;

  static at::Tensor signal_at(const at::Tensor& t) {
    return ((t + kOffset) / (1 + kOffset) * (kPi / 2)).cos().square();
  }

  double shift_;
  double first_;  // signal_at(0)
};

class FlowSampling : public ModelSampling {
 public:
  FlowSampling(double shift, double multiplier)
      : ModelSampling(Prediction::Flow, 1.0), shift_(shift), multiplier_(multiplier) {
    constexpr int kLevels = 1000;
    sigmas_ = to_sigmas(sigma((at::arange(1, kLevels + 1, at::kLong) / kLevels) * multiplier));
  }
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override { return sigma * multiplier_; }
  at::Tensor sigma(const at::Tensor& timestep) const override {
    at::Tensor t = timestep / multiplier_;
    return shift_ == 1.0 ? t : shift_ * t / (1 + (shift_ - 1) * t);
  }
  double percent_to_sigma(double percent) const override {
    const double t = 1.0 - std::clamp(percent, 0.0, 1.0);
    return shift_ == 1.0 ? t : shift_ * t / (1 + (shift_ - 1) * t);
  }

 private:
  double shift_;
  double multiplier_;
};

class FluxSampling : public ModelSampling {
 public:
  explicit FluxSampling(double shift)
      : ModelSampling(Prediction::Flow, 1.0), weight_(std::exp(shift)) {
    constexpr int kLevels = 10000;
    sigmas_ = to_sigmas(sigma(at::arange(1, kLevels + 1, at::kLong) / kLevels));
  }
  using ModelSampling::sigma;
  using ModelSampling::timestep;

  at::Tensor timestep(const at::Tensor& sigma) const override { return sigma; }
  at::Tensor sigma(const at::Tensor& timestep) const override {
    return weight_ / (weight_ + (1 / timestep - 1));
  }
  double percent_to_sigma(double percent) const override {
    if (percent <= 0.0) {
      return 1.0;
    }
    if (percent >= 1.0) {
      return 0.0;
    }
    return weight_ / (weight_ + (1 / (1.0 - percent) - 1));
  }

 private:
  double weight_;  // e^shift
};

}  // namespace

ModelSampling::ModelSampling(Prediction prediction, double sigma_data)
    : prediction_(prediction), sigma_data_(sigma_data) {}

float ModelSampling::timestep(float sigma) const {
  return timestep(at::scalar_tensor(sigma, at::kFloat)).item().toFloat();
}

float ModelSampling::sigma(float timestep) const {
  return sigma(at::scalar_tensor(timestep, at::kFloat)).item().toFloat();
}

at::Tensor ModelSampling::calculate_input(const at::Tensor& sigma, const at::Tensor& x) const {
  if (is_flow() || prediction_ == Prediction::ImgToImg) {
    return x;
  }
  const at::Tensor s = against(sigma, x.dim());
  if (prediction_ == Prediction::CosmosFlow) {
    return x / (s + 1);
  }
  return x / (s * s + sigma_data_ * sigma_data_).sqrt();
}

at::Tensor ModelSampling::calculate_denoised(const at::Tensor& sigma, const at::Tensor& output,
                                             const at::Tensor& x) const {
  const at::Tensor s = against(sigma, output.dim());
  switch (prediction_) {
    case Prediction::Eps:
    case Prediction::Flow: return x - output * s;
    case Prediction::X0:
    case Prediction::ImgToImg: return output;
    case Prediction::Lcm: return consistent(sigma, x - output * s, x);
    case Prediction::CosmosFlow: return (x - output * s) / (s + 1);
    case Prediction::V:
    case Prediction::Edm: break;
  }
  const double data_squared = sigma_data_ * sigma_data_;
  const at::Tensor total = s * s + data_squared;
  const at::Tensor kept = x * data_squared / total;
  const at::Tensor predicted = output * s * sigma_data_ / total.sqrt();
  return prediction_ == Prediction::V ? kept - predicted : kept + predicted;
}

// Source: Luo et al. 2023; ComfyUI comfy_extras/nodes_model_advanced.py, LCM.
at::Tensor ModelSampling::consistent(const at::Tensor& sigma, const at::Tensor& x0,
                                     const at::Tensor& x) const {
  constexpr double kData = 0.5;
  constexpr double kTimestepScale = 10.0;
  const at::Tensor t = against(timestep(sigma), x.dim()) * kTimestepScale;
  const at::Tensor total = t * t + kData * kData;
  return x0 * (t / total.sqrt()) + x * (kData * kData / total);
}

at::Tensor ModelSampling::noise_scaling(const at::Tensor& sigma, const at::Tensor& noise,
                                        const at::Tensor& latent, bool max_denoise) const {
  const at::Tensor s = against(sigma, noise.dim());
  if (is_flow()) {
    return s * noise + (1.0 - s) * latent;
  }
  if (prediction_ == Prediction::CosmosFlow) {
    return noise * s + latent;
  }
  return noise * (max_denoise ? at::sqrt(1.0 + s * s) : s) + latent;
}

at::Tensor ModelSampling::noise_scaling(float sigma, const at::Tensor& noise,
                                        const at::Tensor& latent, bool max_denoise) const {
  return noise_scaling(at::full({}, sigma, noise.options().dtype(at::kFloat)), noise, latent,
                       max_denoise);
}

at::Tensor ModelSampling::inverse_noise_scaling(float sigma, const at::Tensor& latent) const {
  return is_flow() ? latent / (1.0f - sigma) : latent;
}

std::shared_ptr<const ModelSampling> discrete_sampling(const DiscreteSettings& settings) {
  if (settings.timesteps < 2 || !(settings.linear_start > 0) || !(settings.linear_end < 1)) {
    throw Error(ErrorKind::Usage, "noise schedule",
                "betas must lie between 0 and 1, over 2 timesteps or more");
  }
  return std::make_shared<DiscreteSampling>(settings);
}

namespace {

void check_levels(double sigma_min, double sigma_max) {
  if (!(sigma_min > 0) || !(sigma_max > sigma_min) || !std::isfinite(sigma_max)) {
    throw Error(ErrorKind::Usage, "sigma_min and sigma_max",
                fmt::format("are {:g} and {:g}; the first has to be above 0, the second above the "
                            "first",
                            sigma_min, sigma_max));
  }
}

void check_shift(double shift) {
  if (!(shift > 0) || !std::isfinite(shift)) {
    throw Error(ErrorKind::Usage, "shift", fmt::format("is {:g}; it has to be above 0", shift));
  }
}

}  // namespace

std::shared_ptr<const ModelSampling> continuous_edm_sampling(Prediction prediction,
                                                             double sigma_min, double sigma_max,
                                                             double sigma_data) {
  check_levels(sigma_min, sigma_max);
  return std::make_shared<ContinuousEdmSampling>(prediction, sigma_min, sigma_max, sigma_data);
}

std::shared_ptr<const ModelSampling> continuous_v_sampling(double sigma_min, double sigma_max) {
  check_levels(sigma_min, sigma_max);
  return std::make_shared<ContinuousVSampling>(sigma_min, sigma_max);
}

std::shared_ptr<const ModelSampling> cosmos_flow_sampling(double sigma_min, double sigma_max) {
  check_levels(sigma_min, sigma_max);
  return std::make_shared<CosmosFlowSampling>(sigma_min, sigma_max);
}

std::shared_ptr<const ModelSampling> cascade_sampling(double shift) {
  check_shift(shift);
  return std::make_shared<CascadeSampling>(shift);
}

std::shared_ptr<const ModelSampling> flow_sampling(double shift, double multiplier) {
  check_shift(shift);
  return std::make_shared<FlowSampling>(shift, multiplier);
}

std::shared_ptr<const ModelSampling> flux_sampling(double shift) {
  return std::make_shared<FluxSampling>(shift);
}

}  // namespace distorch::sampling
