#include "distorch/nn/attention_choice.h"

#include <nlohmann/json.hpp>

#include <exception>
#include <limits>
#include <utility>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/memory.h"

namespace distorch::nn {
namespace {

constexpr double kLongEnough = 0.02;  // s
constexpr int kMostRuns = 6;
constexpr double kClearly = 0.95;          // of the first way's time
constexpr double kHopeless = 3;            // times the best: no more runs
constexpr std::size_t kMostShapes = 4096;  // of a device
constexpr std::size_t kLargestFile = std::size_t{4} << 20;

double seconds_of(const MeasuredChoice::Way& way, double best_s, const std::function<void()>& wait,
                  const std::function<double()>& now_s) {
  // Libraries prepare themselves for a new shape; only the second run tells whether more pay.
  way.compute();
  wait();
  double start = now_s();
  way.compute();
  wait();
  const double once = now_s() - start;
  if (once > kHopeless * best_s || once >= kLongEnough) return once;
  start = now_s();
  int runs = 0;
  while (runs < kMostRuns && runs * once < kLongEnough) {
    way.compute();
    ++runs;
  }
  wait();
  return (now_s() - start) / runs;
}

}  // namespace

MeasuredChoice::Choices MeasuredChoice::read() const {
  std::error_code missing;
  if (!std::filesystem::exists(file_, missing)) return {};
  try {
    return nlohmann::json::parse(read_file(file_, kLargestFile)).get<Choices>();
  } catch (const nlohmann::json::exception& error) {
    log::debug("{} is not used: {}", file_.string(), error.what());
  } catch (const Error& error) {
    log::debug("{} is not used: {}", file_.string(), error.what());
  }
  return {};
}

std::string MeasuredChoice::known(const std::string& device, const std::string& shape) {
  std::lock_guard lock(mutex_);
  if (!std::exchange(was_read_, true)) choices_ = read();
  const auto its = choices_.find(device);
  if (its == choices_.end()) return {};
  const auto found = its->second.find(shape);
  return found == its->second.end() ? std::string() : found->second;
}

/// Other processes may have added to the file meanwhile.
void MeasuredChoice::write(const std::string& device, const std::string& shape,
                           const std::string& name) {
  auto all = read();
  auto& shapes = all[device];
  if (shapes.size() >= kMostShapes) shapes.clear();
  shapes[shape] = name;
  try {
    std::error_code ignored;  // write_file says what is wrong with the folder
    if (file_.has_parent_path()) std::filesystem::create_directories(file_.parent_path(), ignored);
    write_file(file_, nlohmann::json(all).dump(1) + "\n");
  } catch (const Error& error) {
    log::debug("{} was not written: {}", file_.string(), error.what());
  }
}

void MeasuredChoice::settle_on(const std::string& name, const std::string& device,
                               const std::string& shape) {
  std::lock_guard lock(mutex_);
  choices_[device][shape] = name;
}

std::string MeasuredChoice::measure(const std::string& device, const std::string& shape,
                                    const std::vector<Way>& ways, const std::function<void()>& wait,
                                    const std::function<double()>& now_s) {
  std::lock_guard one_at_a_time(measuring_);
  if (auto meanwhile = known(device, shape); !meanwhile.empty()) return meanwhile;
  wait();
  auto best = ways.front().name;
  double best_s = seconds_of(ways.front(), std::numeric_limits<double>::infinity(), wait, now_s);
  log::debug("{} on {}: {} takes {:.3f} ms", shape, device, best, best_s * 1e3);
  bool lasting = true;
  for (std::size_t i = 1; i < ways.size(); ++i) {
    try {
      const double seconds = seconds_of(ways[i], best_s, wait, now_s);
      log::debug("{} on {}: {} takes {:.3f} ms", shape, device, ways[i].name, seconds * 1e3);
      if (seconds >= best_s * (best == ways.front().name ? kClearly : 1.0)) continue;
      best = ways[i].name;
      best_s = seconds;
    } catch (const std::exception& error) {
      lasting = lasting && !device::is_out_of_memory(error);
      log::debug("{} on {}: {} cannot: {}", shape, device, ways[i].name, error.what());
    }
  }
  if (lasting) write(device, shape, best);
  settle_on(best, device, shape);
  return best;
}

}  // namespace distorch::nn
