#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::server {

/// What a folder holds, as /userdata answers it: regular files, those below it on request; names
/// that begin with a dot are left out, as are links that lead out of `root`. Sorted by path.
std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder,
                                               const std::filesystem::path& root, bool recurse);

/// {"path", "size", "modified", "created"}: the path relative to `base` with "/", bytes,
/// milliseconds since 1970.
graph::Json file_info(const std::filesystem::path& file, const std::filesystem::path& base);

/// All files and folders below `folder`, hidden ones too: {"name", "path", "type"} and, for files,
/// {"size", "modified"} in bytes and seconds; folders first, each kind by name without case.
graph::Json tree_of(const std::filesystem::path& folder, const std::filesystem::path& root);

/// Seconds since 1970 when a file was written last, and when its inode changed last.
struct FileTimes {
  double modified = 0;
  double changed = 0;
};
FileTimes times_of(const std::filesystem::path& file);

/// Gives a file another name. false where `to` is there and may not be replaced. Error(Usage) where
/// the system refuses.
bool move_file(const std::filesystem::path& from, const std::filesystem::path& to, bool overwrite);

}  // namespace distorch::server
