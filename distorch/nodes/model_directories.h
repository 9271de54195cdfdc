#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "distorch/nodes/model_folders.h"

/// Models that are folders of several files, below the places of a type of model.
namespace distorch::nodes {

/// The folder of that name in the first place that has one; nothing where none has. A name cannot
/// lead out of the places.
std::optional<std::filesystem::path> find_directory(const ModelFolders& folders,
                                                    const std::string& type,
                                                    const std::string& name);

/// Names of the folders that lie directly in the places of a type, sorted, each once, without hidden
/// ones (downloads on their way).
std::vector<std::string> directories_in(const ModelFolders& folders, const std::string& type);

/// Names of the folders at any depth that hold a file called `file`, relative to their place with "/"
/// between parts, sorted, each once. Links are followed, each folder once.
std::vector<std::string> directories_with(const ModelFolders& folders, const std::string& type,
                                          const std::string& file);

}  // namespace distorch::nodes
