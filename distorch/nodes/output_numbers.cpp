#include "distorch/nodes/output_numbers.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>

namespace distorch::nodes {

namespace fs = std::filesystem;

namespace {

// Prefixes with a date or a size make new ones for ever: what is known is dropped above this.
constexpr std::size_t kMostFolders = 1000, kMostNames = 10'000;

std::int64_t highest_in(const fs::path& folder, const std::string& name) {
  std::int64_t highest = 0;
  auto begin = name + "_";
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    auto file = entry->path().filename().string();
    if (file.compare(0, begin.size(), begin) != 0) continue;
    auto digits = file.substr(begin.size(), file.find_first_of("_.", begin.size()) - begin.size());
    if (digits.empty() || digits.size() > 15 ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      continue;
    highest = std::max<std::int64_t>(highest, std::stoll(digits));
  }
  return highest;
}

// Clocks of file systems tick this slowly at most: what happens within a tick leaves the same time.
constexpr std::chrono::milliseconds kTick(100);

bool is_settled(std::int64_t seconds, std::int64_t nanoseconds) {
  auto changed = std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanoseconds);
  return std::chrono::system_clock::now().time_since_epoch() - changed > kTick;
}

}  // namespace

OutputNumbers::Stamp OutputNumbers::stamp_of(const fs::path& folder) {
  struct stat about {};
  if (::stat(folder.c_str(), &about) != 0) return {};
  return {about.st_dev, about.st_ino, about.st_mtim.tv_sec, about.st_mtim.tv_nsec};
}

std::int64_t OutputNumbers::next(const fs::path& folder, const std::string& name) {
  std::lock_guard lock(mutex_);
  if (folders_.size() > kMostFolders) folders_.clear();
  auto& known = folders_[folder.string()];
  auto stamp = stamp_of(folder);
  if (known.stamp != stamp || known.highest.size() > kMostNames) known = {stamp, {}};
  if (auto found = known.highest.find(name); found != known.highest.end()) return found->second + 1;
  ++looks_;
  auto highest = highest_in(folder, name);
  // Else somebody may change it again without a trace.
  if (is_settled(std::get<2>(stamp), std::get<3>(stamp))) known.highest[name] = highest;
  return highest + 1;
}

void OutputNumbers::wrote(const fs::path& folder, const std::string& name, std::int64_t number) {
  std::lock_guard lock(mutex_);
  auto known = folders_.find(folder.string());
  if (known == folders_.end()) return;
  known->second.stamp = stamp_of(folder);
  known->second.highest[name] = number;
}

std::int64_t OutputNumbers::looks() const {
  std::lock_guard lock(mutex_);
  return looks_;
}

OutputNumbers& output_numbers() {
  static OutputNumbers numbers;
  return numbers;
}

}  // namespace distorch::nodes
