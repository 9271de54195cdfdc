#include "bench/gpu/kernels.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"

namespace distorch::bench {

namespace profiler = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

void write_kernels(const std::filesystem::path& path, int calls,
                   const std::function<void()>& call) {
  const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
  const std::set<impl::ActivityType> activities = {impl::ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  for (int i = 0; i < calls; ++i) call();
  auto result = profiler::disableProfiler();

  struct Sum {
    std::int64_t calls = 0;
    double seconds = 0;
  };
  std::map<std::string, Sum> sums;
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA) continue;
    auto& sum = sums[event.name()];
    ++sum.calls;
    sum.seconds += static_cast<double>(event.durationNs()) * 1e-9;
  }
  auto list = nlohmann::json::array();
  for (const auto& [name, sum] : sums)
    list.push_back({{"name", name},
                    {"calls", static_cast<double>(sum.calls) / calls},
                    {"seconds", sum.seconds / calls}});
  std::sort(list.begin(), list.end(),
            [](const auto& a, const auto& b) { return a["seconds"] > b["seconds"]; });
  write_file(path, list.dump(1));
}

}  // namespace distorch::bench
