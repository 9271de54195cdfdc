#include "distorch/streaming/calibration.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/streaming/known_devices.h"

namespace distorch::streaming {

// --- targets ---

std::vector<CountedKernel> count_kernels(const std::vector<KernelWork>& operations) {
  std::vector<CountedKernel> counted;
  for (const auto& work : operations) {
    auto same = std::find_if(counted.begin(), counted.end(),
                             [&](const auto& other) { return other.work == work; });
    if (same == counted.end())
      counted.push_back({work, 1});
    else
      ++same->count;
  }
  return counted;
}

StepTarget make_target(const std::string& name, double seconds, const RunOperations& operations,
                       const RunTimes& times, const std::vector<std::string>& block_names) {
  StepTarget step{name, seconds, {}, count_kernels(operations.outside)};
  double measured = times.outside_s;
  for (double block : times.blocks) measured += block;
  const double scale = measured > 0 ? seconds / measured : 0;
  for (std::size_t i = 0; i < times.blocks.size(); ++i) {
    if (times.blocks[i] <= 0 || operations.blocks[i].empty()) continue;
    auto kernels = count_kernels(operations.blocks[i]);
    auto same = std::find_if(step.blocks.begin(), step.blocks.end(),
                             [&](const auto& other) { return other.kernels == kernels; });
    if (same == step.blocks.end()) {
      step.blocks.push_back({block_names[i], 1, times.blocks[i] * scale, std::move(kernels)});
    } else {
      same->seconds += (times.blocks[i] * scale - same->seconds) / ++same->count;
    }
  }
  return step;
}

double seconds_of(const RigDevice& device, const std::vector<CountedKernel>& kernels) {
  double seconds = 0;
  for (const auto& kernel : kernels) seconds += kernel.count * seconds_of(device, kernel.work);
  return seconds;
}

double predict(const RigDevice& device, const StepTarget& step) {
  double seconds = seconds_of(device, step.outside);
  for (const auto& block : step.blocks) seconds += block.count * seconds_of(device, block.kernels);
  return seconds;
}

FitError error_of(const RigDevice& device, const std::vector<StepTarget>& steps) {
  FitError error;
  double squares = 0, weights = 0;
  for (const auto& step : steps) {
    error.steps = std::max(error.steps, std::abs(predict(device, step) / step.seconds - 1));
    for (const auto& block : step.blocks) {
      const double share = block.count * block.seconds / step.seconds;
      const double off = seconds_of(device, block.kernels) / block.seconds - 1;
      squares += share * off * off;
      weights += share;
    }
  }
  error.blocks = weights > 0 ? std::sqrt(squares / weights) : 0;
  return error;
}

// --- the fit ---

namespace {

enum class Field { Compute, Memory, HalfDepth, Start };

/// One number of RigDevice::kernels, handled as its logarithm.
struct Parameter {
  KernelKind kind;
  Field field;

  double lower() const { return std::log(at(0.05, 0.05, 1, 0.05e-6)); }
  double upper() const { return std::log(at(1.3, 2, 1000, 40e-6)); }

  double read(const RigDevice& device) const {
    const auto& speed = device.speed(kind);
    const double start = speed.start_s.value_or(device.launch_s);
    const double value =
        std::log(std::max(1e-9, at(speed.compute, speed.memory, speed.half_depth, start)));
    return std::clamp(value, lower(), upper());
  }
  void write(RigDevice& device, double logarithm) const {
    auto& speed = device.speed(kind);
    const double value = std::exp(logarithm);
    switch (field) {
      case Field::Compute: speed.compute = value; break;
      case Field::Memory: speed.memory = value; break;
      case Field::HalfDepth: speed.half_depth = value; break;
      case Field::Start: speed.start_s = value; break;
    }
  }

 private:
  double at(double compute, double memory, double half_depth, double start) const {
    switch (field) {
      case Field::Compute: return compute;
      case Field::Memory: return memory;
      case Field::HalfDepth: return half_depth;
      case Field::Start: return start;
    }
    return 0;
  }
};

/// Those that the targets say something about.
std::vector<Parameter> parameters_of(const std::vector<StepTarget>& steps) {
  std::array<bool, kKernelKinds.size()> present{}, computes{};
  const auto look_at = [&](const std::vector<CountedKernel>& kernels) {
    for (const auto& kernel : kernels) {
      const auto kind = static_cast<std::size_t>(kernel.work.kind);
      present[kind] = true;
      computes[kind] = computes[kind] || kernel.work.flops > 0;
    }
  };
  for (const auto& step : steps) {
    look_at(step.outside);
    for (const auto& block : step.blocks) look_at(block.kernels);
  }
  std::vector<Parameter> list;
  for (auto kind : kKernelKinds) {
    if (!present[static_cast<std::size_t>(kind)]) continue;
    list.push_back({kind, Field::Memory});
    list.push_back({kind, Field::Start});
    if (!computes[static_cast<std::size_t>(kind)]) continue;
    list.push_back({kind, Field::Compute});
    list.push_back({kind, Field::HalfDepth});
  }
  return list;
}

/// Least squares over logarithms (Levenberg-Marquardt): errors of steps, of blocks, and how far the
/// parameters went from where they started.
class Fit {
 public:
  Fit(const RigDevice& device, const std::vector<StepTarget>& steps)
      : device_(device), steps_(steps), parameters_(parameters_of(steps)), origin_(read(device)) {}

  using Point = std::vector<double>;

  Point read(const RigDevice& device) const {
    Point x;
    for (const auto& parameter : parameters_) x.push_back(parameter.read(device));
    return x;
  }
  RigDevice device_at(const Point& x) const {
    auto device = device_;
    for (std::size_t i = 0; i < x.size(); ++i) parameters_[i].write(device, x[i]);
    return device;
  }
  /// Walks downhill from x as far as it goes; returns the sum of squares there.
  double descend(Point& x) const {
    auto errors = residuals(x);
    double best = sum_of_squares(errors), damping = 1e-2;
    for (int round = 0; round < 300 && damping < 1e6; ++round) {
      const auto next = step_from(x, errors, damping);
      auto there = residuals(next);
      const double found = sum_of_squares(there);
      if (found >= best) {
        damping *= 4;
        continue;
      }
      const bool arrived = best - found < 1e-9 * best;
      x = next;
      errors = std::move(there);
      best = found;
      damping = std::max(1e-9, damping / 3);
      if (arrived) break;
    }
    return best;
  }

 private:
  // The origin's weight is what keeps a device that follows other rules than ours from being fitted
  // with absurd numbers; it costs the steps a tenth of a percent.
  static constexpr double kStepWeight = 30, kBlockWeight = 1, kOriginWeight = 2e-3;

  static double sum_of_squares(const Point& values) {
    double sum = 0;
    for (double value : values) sum += value * value;
    return sum;
  }

  Point residuals(const Point& x) const {
    const auto device = device_at(x);
    Point list;
    for (const auto& step : steps_) {
      double predicted = seconds_of(device, step.outside);
      for (const auto& block : step.blocks) {
        const double seconds = seconds_of(device, block.kernels);
        predicted += block.count * seconds;
        list.push_back(std::sqrt(kBlockWeight * block.count * block.seconds / step.seconds) *
                       std::log(seconds / block.seconds));
      }
      list.push_back(std::sqrt(kStepWeight) * std::log(predicted / step.seconds));
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      // A half_depth of 1 or of 50 is the same for most sums: its logarithm says less.
      const double weight = parameters_[i].field == Field::HalfDepth ? 0.1 : 1;
      list.push_back(std::sqrt(weight * kOriginWeight) * (x[i] - origin_[i]));
    }
    return list;
  }

  Point step_from(const Point& x, const Point& errors, double damping) const {
    const auto rows = static_cast<std::int64_t>(errors.size()),
               columns = static_cast<std::int64_t>(x.size());
    // Wide enough to see past the kink where an operation's limit changes.
    constexpr double width = 0.02;
    auto slopes = at::empty({columns, rows}, at::kDouble);
    auto* slope = slopes.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < columns; ++i) {
      auto beside = x;
      beside[i] += x[i] + width > parameters_[i].upper() ? -width : width;
      const auto there = residuals(beside);
      for (std::int64_t row = 0; row < rows; ++row)
        *slope++ = (there[row] - errors[row]) / (beside[i] - x[i]);
    }
    auto squares = at::mm(slopes, slopes.t());
    auto move = at::linalg_solve(squares + damping * at::eye(columns, at::kDouble),
                                 at::mv(slopes, at::tensor(errors, at::kDouble)));
    const auto* by = move.const_data_ptr<double>();
    auto next = x;
    for (std::int64_t i = 0; i < columns; ++i)
      next[i] = std::clamp(x[i] - std::clamp(by[i], -1.0, 1.0), parameters_[i].lower(),
                           parameters_[i].upper());
    return next;
  }

  RigDevice device_;
  const std::vector<StepTarget>& steps_;
  std::vector<Parameter> parameters_;
  Point origin_;
};

}  // namespace

FitError calibrate(RigDevice& device, const std::vector<StepTarget>& steps) {
  if (steps.empty()) throw Error(ErrorKind::Usage, device.name, "cannot be fitted to no step");
  for (const auto& step : steps)
    if (!(step.seconds > 0))
      throw Error(ErrorKind::Usage, step.name, "took no time; a fit needs measured seconds");
  device.kernels = typical_kernels();
  const Fit fit(device, steps);
  Fit::Point best;
  double least = 0;
  // The sum has more than one valley: from a few places, the deepest.
  for (const auto& [compute, memory, half_depth, start_s] :
       {std::tuple(1.0, 1.0, 60.0, 2e-6), std::tuple(0.6, 0.5, 1.0, 5e-6),
        std::tuple(1.2, 1.5, 200.0, 1e-6)}) {
    auto start = device;
    for (auto& speed : start.kernels) {
      speed.compute *= compute;
      speed.memory *= memory;
      speed.half_depth = half_depth;
      speed.start_s = start_s;
    }
    auto x = fit.read(start);
    const double found = fit.descend(x);
    if (!best.empty() && found >= least) continue;
    least = found;
    best = std::move(x);
  }
  device = fit.device_at(best);
  return error_of(device, steps);
}

// --- files ---

namespace {

using Json = nlohmann::json;

Json to_json(const std::vector<CountedKernel>& kernels) {
  auto list = Json::array();
  for (const auto& [work, count] : kernels)
    list.push_back({kind_name(work.kind), work.dtype, work.bytes, work.flops, work.depth, count});
  return list;
}

std::vector<CountedKernel> kernels_from_json(const Json& json) {
  std::vector<CountedKernel> kernels;
  for (const auto& entry : json) {
    const auto name = entry.at(0).get<std::string>();
    const auto kind = kind_of_name(name);
    if (!kind) throw std::runtime_error("'" + name + "' is no kind of operation");
    kernels.push_back({{*kind, entry.at(1).get<std::string>(), entry.at(2).get<double>(),
                        entry.at(3).get<double>(), entry.at(4).get<double>()},
                       entry.at(5).get<double>()});
  }
  return kernels;
}

}  // namespace

Json to_json(const std::vector<StepTarget>& steps) {
  auto list = Json::array();
  for (const auto& step : steps) {
    auto blocks = Json::array();
    for (const auto& block : step.blocks)
      blocks.push_back({{"name", block.name},
                        {"count", block.count},
                        {"seconds", block.seconds},
                        {"kernels", to_json(block.kernels)}});
    list.push_back({{"name", step.name},
                    {"seconds", step.seconds},
                    {"blocks", std::move(blocks)},
                    {"outside", to_json(step.outside)}});
  }
  return list;
}

std::vector<StepTarget> targets_from_json(const Json& json, const std::string& where) {
  try {
    std::vector<StepTarget> steps;
    for (const auto& entry : json) {
      StepTarget step{entry.at("name").get<std::string>(),
                      entry.at("seconds").get<double>(),
                      {},
                      kernels_from_json(entry.at("outside"))};
      for (const auto& block : entry.at("blocks"))
        step.blocks.push_back({block.at("name").get<std::string>(), block.at("count").get<double>(),
                               block.at("seconds").get<double>(),
                               kernels_from_json(block.at("kernels"))});
      steps.push_back(std::move(step));
    }
    return steps;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::Format, where,
                fmt::format("is not a list of calibration targets: {}", error.what()));
  }
}

}  // namespace distorch::streaming
