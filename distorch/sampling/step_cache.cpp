#include "distorch/sampling/step_cache.h"

#include <algorithm>

#include "distorch/base/log.h"

namespace distorch::sampling {
namespace {

constexpr std::int64_t kEvery = 8;  // cells between those that changes are measured on

double mean_change(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().mean().item().toDouble();
}

}  // namespace

StepCache::StepCache(const CachedSteps& settings, const ModelSampling& sampling)
    : settings_(settings),
      start_(static_cast<float>(sampling.percent_to_sigma(settings.start_percent))),
      end_(static_cast<float>(sampling.percent_to_sigma(settings.end_percent))) {}

void StepCache::begin() { skip_ = false; }

// The part of the owner that decides.
at::Tensor StepCache::sample_of(const at::Tensor& x, const std::vector<const void*>& owners) const {
  const auto place = std::find(owners.begin(), owners.end(), first_) - owners.begin();
  const at::Tensor part = x.chunk(static_cast<std::int64_t>(owners.size()))[place];
  return part.slice(-2, 0, part.size(-2), kEvery).slice(-1, 0, part.size(-1), kEvery);
}

std::optional<at::Tensor> StepCache::reuse(const at::Tensor& x,
                                           const std::vector<const void*>& owners) {
  std::vector<at::Tensor> parts = x.chunk(static_cast<std::int64_t>(owners.size()));
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const auto known = differences_.find(owners[i]);
    if (known == differences_.end() || known->second.sizes() != parts[i].sizes()) {
      return std::nullopt;  // it was not there when the others were computed
    }
    parts[i] = parts[i] + known->second;
  }
  return at::cat(parts);
}

bool StepCache::little_changed(double input_change) {
  added_up_ += *rate_ * input_change / *last_output_norm_;
  if (settings_.verbose) {
    log::info("step cache: change {:.4f} of {:.4f}", added_up_, settings_.threshold);
  }
  if (added_up_ < settings_.threshold) {
    return true;
  }
  added_up_ = 0;
  return false;
}

void StepCache::reset_unless_alike(const at::Tensor& x) {
  std::vector<std::int64_t> shape = x.sizes().slice(1).vec();
  if (shape_ && *shape_ != shape) {
    rate_ = 0;
    added_up_ = 0;
    skip_ = false;
    first_ = nullptr;
    last_input_.reset();
    last_output_.reset();
    last_output_norm_.reset();
    differences_.clear();
  }
  shape_ = std::move(shape);
}

void StepCache::learn(const at::Tensor& x, const at::Tensor& output,
                      const std::vector<const void*>& owners, std::optional<double> input_change) {
  const std::vector<at::Tensor> parts =
      (output - x).chunk(static_cast<std::int64_t>(owners.size()));
  for (std::size_t i = 0; i < owners.size(); ++i) {
    differences_[owners[i]] = parts[i];
  }
  if (first_ == nullptr || std::find(owners.begin(), owners.end(), first_) == owners.end()) {
    return;
  }
  const at::Tensor sample = sample_of(output, owners);
  if (last_output_norm_ && input_change) {
    rate_ = mean_change(sample, last_output_) / *input_change;
  }
  last_input_ = sample_of(x, owners).clone();
  last_output_ = sample.clone();
  last_output_norm_ = output.abs().mean().item().toDouble();
}

at::Tensor StepCache::through(const at::Tensor& x, float sigma,
                              const std::vector<const void*>& owners,
                              const std::function<at::Tensor()>& compute) {
  if (!(sigma > end_)) {
    return compute();
  }
  if (settings_.kind == CachedSteps::Kind::Lazy) {
    first_ = owners.front();
  }
  std::optional<double> input_change;
  if (sigma <= start_) {
    reset_unless_alike(x);
    if (first_ == nullptr) {
      first_ = owners.front();
    }
    const bool decides = std::find(owners.begin(), owners.end(), first_) != owners.end();
    if (decides && !skip_ && last_input_.defined()) {
      input_change = mean_change(sample_of(x, owners), last_input_);
      skip_ = last_output_norm_ && rate_ && little_changed(*input_change);
    }
    if (skip_) {
      if (auto known = reuse(x, owners)) {
        skipped_ += decides ? 1 : 0;
        return *known;
      }
    }
  }
  const at::Tensor output = compute();
  learn(x, output, owners, input_change);
  return output;
}

}  // namespace distorch::sampling
