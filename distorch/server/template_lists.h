#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>

namespace distorch::server {

/// The lists of a folder of workflow templates ("index.json", "index.de.json", ...), as texts, with
/// only those templates whose node types are all known; a category without any is left out. A list
/// that cannot be read is left out of the result.
std::map<std::string, std::string> template_lists(
    const std::filesystem::path& folder,
    const std::function<bool(const std::string& type)>& knows_node);

}  // namespace distorch::server
