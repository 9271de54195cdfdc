#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "distorch/device/kind.h"
#include "distorch/device/memory.h"
#include "distorch/device/registered.h"

// The CPU and its RAM, within what the cgroup of this process leaves of it.
namespace distorch::device {
namespace {

// The first number after `key` in a file of "key value" lines; nothing when there is none.
std::optional<std::int64_t> number_after(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  std::int64_t value = 0;
  while (file >> word)
    if (word == key && file >> value) return value;
  return std::nullopt;
}

std::optional<std::int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

struct Cgroup {
  std::optional<std::int64_t> limit, used;
  std::optional<std::int64_t> reclaimable;  // file pages that were not used lately
  std::int64_t file_pages = 0;              // all of them: what the kernel takes before it kills
};

void tighten(Cgroup& into, const Cgroup& level) {
  if (!level.limit || !level.used) return;
  if (!into.limit || *level.limit - *level.used < *into.limit - *into.used) into = level;
}

/// The same keys of memory.stat in both versions, but for a prefix: "" or "total_".
Cgroup level_of(const std::string& folder, const char* limit, const char* used,
                const std::string& prefix) {
  const auto stat = folder + "memory.stat";
  Cgroup level{number_in(folder + limit), number_in(folder + used)};
  if (!level.limit || !level.used) return level;
  level.reclaimable = number_after(stat, prefix + "inactive_file");
  level.file_pages =
      level.reclaimable.value_or(0) + number_after(stat, prefix + "active_file").value_or(0);
  return level;
}

// The tightest limit on the way from this process's group to the root of its hierarchy.
Cgroup tightest(std::string group, const std::string& root, const char* limit, const char* used,
                const char* prefix) {
  Cgroup found;
  for (;;) {
    const auto folder = root + (group == "/" ? "" : group) + "/";
    tighten(found, level_of(folder, limit, used, prefix));
    const auto slash = group.find_last_of('/');
    if (group.size() <= 1 || slash == std::string::npos) return found;
    group = slash == 0 ? "/" : group.substr(0, slash);
  }
}

Cgroup cgroup_memory() {
  Cgroup found;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const auto controllers = line.substr(first + 1, second - first - 1),
               group = line.substr(second + 1);
    if (controllers.empty())
      tighten(found, tightest(group, "/sys/fs/cgroup", "memory.max", "memory.current", ""));
    else if (controllers.find("memory") != std::string::npos)
      tighten(found, tightest(group, "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                              "memory.usage_in_bytes", "total_"));
  }
  return found;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "CPU";
}

// x86 lists avx512_bf16 or amx_bf16 among its flags, Arm lists bf16 among its features.
bool has_bf16_instructions() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      if (word == "avx512_bf16" || word == "amx_bf16" || word == "bf16") return true;
    return false;
  }
  return false;
}

class CpuKind final : public Kind {
 public:
  c10::DeviceType type() const override { return c10::kCPU; }

  std::vector<DeviceInfo> list() override {
    const auto use = memory(0);
    const bool bf16 = has_bf16_instructions();
    const int threads = at::get_num_threads();
    auto text = fmt::format("{}, {} threads{}", processor_name(), threads, bf16 ? ", bf16" : "");
    return {{"cpu", "cpu", std::move(text), use.total, use.free, false, bf16, threads}};
  }

  MemoryUse memory(int) override {
    MemoryUse use;
    use.total = number_after("/proc/meminfo", "MemTotal:").value_or(0) * 1024;
    use.free = number_after("/proc/meminfo", "MemAvailable:").value_or(0) * 1024;
    const auto group = cgroup_memory();
    if (group.limit && *group.limit < use.total) {
      use.total = *group.limit;
      use.free = std::min(use.free, *group.limit - *group.used + group.reclaimable.value_or(0));
    }
    use.in_use = use.reserved = number_after("/proc/self/status", "VmRSS:").value_or(0) * 1024;
    use.peak = number_after("/proc/self/status", "VmHWM:").value_or(0) * 1024;
    const auto anonymous = number_after("/proc/self/status", "RssAnon:");
    const auto shared = number_after("/proc/self/status", "RssShmem:");
    // Where the kernel does not tell them apart nothing is taken to be given back.
    use.own = (anonymous.value_or(0) + shared.value_or(0)) * 1024 + registered_file_bytes();
    return use;
  }

  bool computes_as_cpu() override { return true; }
  void reset_peak(int) override {
    std::ofstream("/proc/self/clear_refs") << 5;
  }  // where the system allows it
  void empty_cache() override {}
  void limit_memory(int, std::int64_t) override {}
  std::optional<std::string> register_host(void*, std::int64_t, bool) override {
    return std::nullopt;
  }
  void unregister_host(void*) noexcept override {}
};

}  // namespace

std::int64_t host_room() {
  const auto system = [](const char* key) {
    return number_after("/proc/meminfo", key).value_or(0) * 1024;
  };
  auto room = system("MemAvailable:") + system("SwapFree:");
  const auto group = cgroup_memory();
  if (group.limit) room = std::min(room, *group.limit - *group.used + group.file_pages);
  return std::max<std::int64_t>(room, 0);
}

Kind& cpu_kind() {
  static CpuKind kind;
  return kind;
}

}  // namespace distorch::device
