#include "distorch/nodes/input_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/text.h"
#include "distorch/graph/near_names.h"

namespace distorch::nodes {

namespace fs = std::filesystem;

fs::path annotated_path(const std::string& name, const Settings& settings) {
  auto folder = settings.input_folder;
  auto plain = name;
  auto annotated = [&](const std::string& mark, const fs::path& place) {
    if (!name.ends_with(mark)) return;
    plain = name.substr(0, name.size() - mark.size());
    if (!plain.empty() && plain.back() == ' ') plain.pop_back();
    folder = place;
  };
  annotated("[input]", settings.input_folder);
  annotated("[output]", settings.output_folder);
  annotated("[temp]", settings.temp_folder);
  std::error_code error;
  bool windows = plain.find('\\') != std::string::npos && !fs::exists(folder / plain, error);
  if (windows) std::replace(plain.begin(), plain.end(), '\\', '/');
  auto relative = fs::path(plain).lexically_normal();
  if (relative.is_absolute() || (!relative.empty() && *relative.begin() == ".."))
    throw Error(ErrorKind::Usage, name, fmt::format("leads out of the folder {}", folder.string()));
  if (windows && fs::exists(folder / relative, error))
    log::warn_once(fmt::format("'{}' is written as on Windows and read as '{}'", name, plain));
  return folder / relative;
}

std::string missing_input(const std::string& name, const Settings& settings,
                          const std::vector<std::string>& known) {
  try {
    auto path = annotated_path(name, settings);
    if (fs::is_regular_file(path)) return "";
    return fmt::format("Invalid file: {} (no such file: {}).{}", name, path.string(),
                       graph::did_you_mean(name, known));
  } catch (const Error& problem) {
    return fmt::format("Invalid file: {}", problem.what());
  }
}

std::vector<std::string> input_names(const Settings& settings,
                                     const std::vector<std::string>& extensions) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(settings.input_folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (!entry->is_regular_file(ignored)) continue;
    auto extension = lower(entry->path().extension().string());
    if (extensions.empty() ||
        std::find(extensions.begin(), extensions.end(), extension) != extensions.end())
      names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace distorch::nodes
