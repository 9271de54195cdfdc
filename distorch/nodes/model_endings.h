#pragma once
#include <string>
#include <vector>

namespace distorch::nodes {

/// What counts as a file of a type of ModelFolders: endings with their dots, sorted; none for types
/// of the user's own, of which every file counts. "" stands for names without an ending, "folder"
/// for folders.
std::vector<std::string> model_endings(const std::string& type);

}  // namespace distorch::nodes
