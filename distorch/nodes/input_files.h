#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "distorch/nodes/settings.h"

namespace distorch::nodes {

/// The file that a loader's name means: "a.png" or "sub/a.png" in the input folder, "a.png
/// [output]", "[temp]" and "[input]" in the one that is named; "sub\a.png", as Windows writes it, is
/// "sub/a.png" where there is no file of that very name. Error(Usage) for a name that leads
/// out of its folder.
std::filesystem::path annotated_path(const std::string& name, const Settings& settings);

/// "" if the name means a file that is there, else what is wrong, with near names among `known`.
std::string missing_input(const std::string& name, const Settings& settings,
                          const std::vector<std::string>& known);

/// Files that lie directly in the input folder and have one of these endings (with the dot, lower
/// case; none: all), sorted.
std::vector<std::string> input_names(const Settings& settings,
                                     const std::vector<std::string>& extensions);

}  // namespace distorch::nodes
