#include "distorch/nodes/model_directories.h"

#include <set>

namespace distorch::nodes {

namespace fs = std::filesystem;

namespace {

template <class Visit>
void each_directory(const fs::path& folder, Visit visit) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (std::error_code ignored; entry->is_directory(ignored)) visit(entry->path());
}

}  // namespace

std::optional<fs::path> find_directory(const ModelFolders& folders, const std::string& type,
                                       const std::string& name) {
  const auto relative = (fs::path("/") / name).lexically_normal().relative_path();
  std::error_code ignored;
  for (const auto& place : folders.folders(type))
    if (!relative.empty() && fs::is_directory(place / relative, ignored)) return place / relative;
  return {};
}

std::vector<std::string> directories_in(const ModelFolders& folders, const std::string& type) {
  std::set<std::string> names;
  for (const auto& place : folders.folders(type))
    each_directory(place, [&](const fs::path& found) {
      if (auto name = found.filename().string(); !name.starts_with('.')) names.insert(name);
    });
  return {names.begin(), names.end()};
}

std::vector<std::string> directories_with(const ModelFolders& folders, const std::string& type,
                                          const std::string& file) {
  std::set<std::string> names;
  for (const auto& place : folders.folders(type)) {
    std::set<fs::path> seen;
    std::vector<fs::path> waiting = {place};
    while (!waiting.empty()) {
      const auto folder = std::move(waiting.back());
      waiting.pop_back();
      std::error_code error;
      const auto real = fs::canonical(folder, error);
      if (error || !seen.insert(real).second) continue;
      if (fs::is_regular_file(folder / file, error))
        names.insert(folder.lexically_relative(place).generic_string());
      each_directory(folder, [&](const fs::path& found) { waiting.push_back(found); });
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace distorch::nodes
