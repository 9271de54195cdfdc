#include "distorch/server/stored_file.h"

#include <fmt/format.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

bool holds(const fs::path& file, std::string_view content) {
  std::error_code error;
  auto size = fs::file_size(file, error);
  return !error && size == content.size() && read_file(file) == content;
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw Error(ErrorKind::Usage, folder.filename().string(),
                "cannot be made a folder: " + error.message());
}

}  // namespace

std::string store_file(const fs::path& wanted, const std::string& name, std::string_view content,
                       bool overwrite) {
  make_folder(wanted.parent_path());
  std::error_code ignored;
  if (fs::is_directory(wanted, ignored)) throw Error(ErrorKind::Usage, name, "is a folder");
  AtomicFile file(wanted);
  if (overwrite) {
    file.write(content);
    file.commit();
    return name;
  }
  auto stem = wanted.stem().string(), ending = wanted.extension().string();
  auto place = wanted;
  bool written = false;
  for (int number = 0; number < 100'000; ++number) {
    if (number > 0) place.replace_filename(fmt::format("{} ({}){}", stem, number, ending));
    // The name as it was asked for, with its folders, less the last part.
    auto taken = number == 0
                     ? name
                     : name.substr(0, name.find_last_of("/\\") + 1) + place.filename().string();
    if (holds(place, content)) return taken;
    if (fs::exists(fs::symlink_status(place, ignored))) continue;
    if (!written) file.write(content);
    written = true;
    if (file.commit_if_absent(place)) return taken;
    --number;  // another upload took the name in between: it may hold the same
  }
  throw Error(ErrorKind::Usage, name, "has too many namesakes");
}

}  // namespace distorch::server
