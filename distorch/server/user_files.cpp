#include "distorch/server/user_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <tuple>

#include "distorch/base/error.h"
#include "distorch/base/text.h"
#include "distorch/server/confined_path.h"

namespace distorch::server {

namespace fs = std::filesystem;
using graph::Json;

namespace {

/// Calls `visit` for everything below a folder that lies within `root`; folders that are links are
/// entered once.
template <class Visit>
void walk(const fs::path& folder, const fs::path& root, bool recurse, const Visit& visit) {
  std::vector<fs::path> waiting = {folder};
  std::vector<fs::path> seen;
  while (!waiting.empty()) {
    auto current = std::move(waiting.back());
    waiting.pop_back();
    std::error_code error;
    auto real = fs::canonical(current, error);
    if (error || std::find(seen.begin(), seen.end(), real) != seen.end()) continue;
    seen.push_back(real);
    for (fs::directory_iterator entry(current, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_symlink(ignored) && !lies_within(root, entry->path())) continue;
      bool is_folder = entry->is_directory(ignored);
      if (visit(*entry, is_folder) && is_folder && recurse) waiting.push_back(entry->path());
    }
  }
}

double seconds(const timespec& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

bool is_hidden(const fs::path& path) {
  auto name = path.filename().string();
  return !name.empty() && name[0] == '.';
}

}  // namespace

FileTimes times_of(const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return {};
  return {seconds(status.st_mtim), seconds(status.st_ctim)};
}

std::vector<fs::path> files_below(const fs::path& folder, const fs::path& root, bool recurse) {
  std::vector<fs::path> files;
  walk(folder, root, recurse, [&](const fs::directory_entry& entry, bool) {
    std::error_code ignored;
    if (is_hidden(entry.path())) return false;
    if (entry.is_regular_file(ignored)) files.push_back(entry.path());
    return true;
  });
  std::sort(files.begin(), files.end());
  return files;
}

Json file_info(const fs::path& file, const fs::path& base) {
  std::error_code ignored;
  auto times = times_of(file);
  auto milliseconds = [](double time) {
    return static_cast<std::int64_t>(std::floor(time * 1000));
  };
  return Json{{"path", file.lexically_relative(base).generic_string()},
              {"size", fs::file_size(file, ignored)},
              {"modified", milliseconds(times.modified)},
              {"created", milliseconds(times.changed)}};
}

Json tree_of(const fs::path& folder, const fs::path& root) {
  using Key = std::tuple<bool, std::string, std::string>;
  std::vector<std::pair<Key, Json>> entries;
  walk(folder, root, true, [&](const fs::directory_entry& entry, bool is_folder) {
    auto name = entry.path().filename().string();
    auto path = entry.path().lexically_relative(root).generic_string();
    Json info = {{"name", name}, {"path", path}, {"type", is_folder ? "directory" : "file"}};
    std::error_code error;
    if (!is_folder) {
      auto size = entry.file_size(error);
      if (!error) info["size"] = size;
      if (!error) info["modified"] = times_of(entry.path()).modified;
    }
    entries.emplace_back(Key{!is_folder, lower(name), path}, std::move(info));
    return true;
  });
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Json all = Json::array();
  for (auto& [key, info] : entries) all.push_back(std::move(info));
  return all;
}

bool move_file(const fs::path& from, const fs::path& to, bool overwrite) {
  std::error_code ignored;
  if (!overwrite && fs::exists(fs::symlink_status(to, ignored))) return false;
  // A link with the new name never replaces a file, and is there before the old name goes.
  if (!overwrite && fs::is_regular_file(fs::symlink_status(from, ignored))) {
    if (::link(from.c_str(), to.c_str()) == 0) {
      ::unlink(from.c_str());
      return true;
    }
    if (errno == EEXIST) return false;
  }
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw Error(ErrorKind::Usage, to.filename().string(),
                std::string("cannot be given this name: ") + std::strerror(errno));
  return true;
}

}  // namespace distorch::server
