#pragma once
#include <filesystem>

namespace distorch::cli {

/// Deletes what is in a folder for pictures that nobody keeps, as a server does when it starts and
/// when it ends. Only where the folder is called "temp": a path that was mistyped loses nothing.
/// Weights that another running process mixed for itself ("mixed/<process>-...") stay. What cannot
/// be deleted is told to the log.
void empty_temp_folder(const std::filesystem::path& folder);

}  // namespace distorch::cli
