#include "distorch/cli/temp_folder.h"

#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "distorch/base/log.h"

namespace distorch::cli {

namespace fs = std::filesystem;

namespace {

/// The process in whose name a file of mixed weights begins is there.
bool owner_lives(const fs::path& file) {
  auto process = std::atoi(file.filename().c_str());
  return process > 0 && (::kill(process, 0) == 0 || errno != ESRCH);
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end;
       entry.increment(code))
    paths.push_back(entry->path());
  return paths;
}

void take_away(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) log::warn("{} stays: {}", path.string(), code.message());
}

}  // namespace

void empty_temp_folder(const fs::path& folder) {
  auto name = folder.filename().empty() ? folder.parent_path().filename() : folder.filename();
  std::error_code code;
  if (!fs::is_directory(folder, code)) return;
  if (name != "temp") {
    log::debug("{} is not called temp: its files stay", folder.string());
    return;
  }
  auto weights = folder / "mixed";
  bool has_weights = fs::is_directory(fs::symlink_status(weights, code));
  for (const auto& path : entries_of(folder))
    if (!has_weights || path.filename() != weights.filename()) take_away(path);
  if (!has_weights) return;
  for (const auto& path : entries_of(weights))
    if (!owner_lives(path)) take_away(path);
}

}  // namespace distorch::cli
