#include "distorch/nodes/hyvideo_wrapper_cache.h"

#include <array>

namespace distorch::nodes::hyvideo {

using at::Tensor;

namespace {

// Of the polynomial that tells how much the result changes by how much what goes in does, highest
// power first. Source: TeaCache, TeaCache4HunyuanVideo.
constexpr std::array<double, 5> kNumbers = {7.33226126e+02, -4.01131952e+02, 6.75869174e+01,
                                            -3.14987800e+00, 9.61237896e-02};

double mean_size(const Tensor& x) { return x.abs().mean().item<double>(); }

}  // namespace

TeaCacheRun::TeaCacheRun(const TeaCache& choice, std::int64_t steps)
    : choice_(choice), steps_(steps), last_(choice.end < 0 ? steps - 1 : choice.end) {}

bool TeaCacheRun::little_changed(const Tensor& now) {
  const bool first = calls_ == 0, last = calls_ == steps_ - 1;
  if (first || last || now.sizes() != seen_.sizes()) return false;
  const double ratio = mean_size(now - seen_) / mean_size(seen_);
  double value = 0;
  for (double one : kNumbers) value = value * ratio + one;
  sum_ += value;
  return sum_ < choice_.threshold;
}

Tensor TeaCacheRun::velocities(HyNetwork& network, const Tensor& x, float timestep,
                               const std::vector<Pass>& passes, const CallOptions& options,
                               std::int64_t step) {
  if (step < choice_.start || step > last_) return network.velocities(x, timestep, passes, options);
  auto now = network.entrance(x, timestep, passes, options);
  const bool leaves_out = little_changed(now);
  seen_ = std::move(now);
  ++calls_;
  if (leaves_out) {
    ++left_out_;
    return network.changed_velocities(x, timestep, passes, options, change_);
  }
  sum_ = 0;
  auto kept = network.kept_velocities(x, timestep, passes, options);
  change_ = choice_.on_device ? kept.change.clone() : kept.change.to(at::kCPU);
  return kept.velocity;
}

}  // namespace distorch::nodes::hyvideo
