#include "distorch/nodes/wan_wrapper_cache.h"

#include <algorithm>
#include <cmath>

namespace distorch::nodes::wan_wrapper {

using at::Tensor;

namespace {

double mean_size(const Tensor& x) { return x.to(at::kFloat).abs().mean().item<double>(); }

double polynomial(const std::array<double, 5>& coefficients, double x) {
  double value = 0;
  for (double one : coefficients) value = value * x + one;
  return value;
}

bool alike(const CallOptions& a, const CallOptions& b) {
  return a.skipped == b.skipped && a.enhance == b.enhance && a.riflex == b.riflex &&
         a.speech_scale == b.speech_scale;
}

bool all_alike(const std::vector<CallOptions>& options) {
  return std::ranges::all_of(options,
                             [&](const CallOptions& one) { return alike(one, options.front()); });
}

}  // namespace

Tensor plain_velocities(WanNetwork& network, const Tensor& x, float timestep,
                        const std::vector<Pass>& passes, const std::vector<CallOptions>& options) {
  if (all_alike(options)) return network.velocities(x, timestep, passes, options.front());
  std::vector<Tensor> parts;
  for (std::size_t i = 0; i < passes.size(); ++i)
    parts.push_back(network.velocities(x, timestep, {passes[i]}, options[i]));
  return at::cat(parts);
}

StepCacheRun::StepCacheRun(const CacheChoice& choice, const std::string& variant,
                           std::int64_t steps)
    : choice_(choice),
      numbers_(cache_numbers(variant)),
      last_(choice.end == -1 ? steps - 1 : choice.end) {}

/// What a step is told by: undefined where its number is enough.
Tensor StepCacheRun::observed(WanNetwork& network, const Tensor& x, float timestep,
                              const Pass& pass) const {
  if (choice_.kind == CacheChoice::Kind::Mag) return {};
  if (choice_.kind == CacheChoice::Kind::Easy) return network.tokens(x, timestep, pass);
  auto entrance = network.times(x, timestep, pass);
  return choice_.coefficients && !choice_.parts ? entrance.embedding : entrance.parts;
}

bool StepCacheRun::little_changed(Memory& memory, const Tensor& now) const {
  const double ratio = mean_size(now - memory.seen) / mean_size(memory.seen);
  const auto& numbers = choice_.parts ? numbers_.parts : numbers_.embedding;
  memory.sum += choice_.coefficients ? polynomial(numbers, ratio) : ratio;
  if (memory.sum < choice_.threshold) return true;
  memory.sum = 0;
  return false;
}

bool StepCacheRun::magnitude_kept(Memory& memory, std::int64_t step) const {
  constexpr double measured_steps = 50;
  const auto& magnitudes = numbers_.magnitudes;
  const auto half = static_cast<double>(magnitudes.size() / 2);
  const auto at = static_cast<std::size_t>(static_cast<double>(step) * (half / measured_steps));
  memory.ratio *= magnitudes[std::min(at, magnitudes.size() - 1)];
  memory.error += std::abs(1 - memory.ratio);
  ++memory.in_a_row;
  if (memory.error <= choice_.threshold && memory.in_a_row <= choice_.most) return true;
  memory.ratio = 1;
  memory.error = 0;
  memory.in_a_row = 0;
  return false;
}

bool StepCacheRun::leaves_out(Memory& memory, const Tensor& now, std::int64_t step) const {
  if (!memory.change.defined()) return false;
  switch (choice_.kind) {
    case CacheChoice::Kind::Tea: return little_changed(memory, now);
    case CacheChoice::Kind::Mag: return magnitude_kept(memory, step);
    case CacheChoice::Kind::Easy:
      return mean_size(now - memory.seen) / memory.output < choice_.threshold;
  }
  return false;
}

Tensor StepCacheRun::compute(WanNetwork& network, const Tensor& x, float timestep,
                             const std::vector<Pass>& passes, const CallOptions& options,
                             const std::vector<Memory*>& memories, const Tensor& now) {
  auto kept = network.kept_velocities(x, timestep, passes, options);
  for (std::size_t i = 0; i < passes.size(); ++i) {
    auto& memory = *memories[i];
    auto change = kept.change.narrow(0, static_cast<std::int64_t>(i), 1);
    if (choice_.kind == CacheChoice::Kind::Easy)
      memory.output = mean_size(now.view(change.sizes()) + change.to(at::kFloat));
    memory.change = choice_.on_device ? change.clone() : change.to(at::kCPU);
    memory.seen = now;
  }
  return kept.velocity;
}

Tensor StepCacheRun::leave_out(WanNetwork& network, const Tensor& x, float timestep,
                               const std::vector<Pass>& passes, const CallOptions& options,
                               const std::vector<Memory*>& memories, const Tensor& now) {
  std::vector<Tensor> changes;
  for (auto* memory : memories) {
    changes.push_back(memory->change.to(network.device()));
    if (choice_.kind == CacheChoice::Kind::Easy)
      memory->output = mean_size(now.view(changes.back().sizes()) + changes.back().to(at::kFloat));
    ++left_out_;
  }
  return network.changed_velocities(x, timestep, passes, options, at::cat(changes));
}

Tensor StepCacheRun::velocities(WanNetwork& network, const Tensor& x, float timestep,
                                const std::vector<Pass>& passes,
                                const std::vector<CallOptions>& options, std::int64_t step) {
  if (step < choice_.start || step > last_)
    return plain_velocities(network, x, timestep, passes, options);
  memories_.resize(std::max(memories_.size(), passes.size()));
  // Both passes see the same latent at the same noise level.
  const auto now = observed(network, x, timestep, passes.front());
  std::vector<bool> left;
  std::vector<Memory*> memories;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    memories.push_back(&memories_[i]);
    left.push_back(leaves_out(memories_[i], now, step));
  }
  auto run = [&](bool leave, const std::vector<Pass>& some, const CallOptions& how,
                 const std::vector<Memory*>& of) {
    return leave ? leave_out(network, x, timestep, some, how, of, now)
                 : compute(network, x, timestep, some, how, of, now);
  };
  if (std::ranges::all_of(left, [&](bool one) { return one == left.front(); }) &&
      all_alike(options))
    return run(left.front(), passes, options.front(), memories);
  std::vector<Tensor> parts;
  for (std::size_t i = 0; i < passes.size(); ++i)
    parts.push_back(run(left[i], {passes[i]}, options[i], {memories[i]}));
  return at::cat(parts);
}

}  // namespace distorch::nodes::wan_wrapper
