#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace distorch::server {

/// Writes what a client sent to `file`, which confined_path() has allowed, whole or not at all; its
/// folder is made. Without `overwrite` a name that is taken by another content gets " (1)", " (2)",
/// ... before its ending, and one that holds the same content is kept. `name`: the file as the
/// client called it, with folders. Returns it as it is now.
std::string store_file(const std::filesystem::path& file, const std::string& name,
                       std::string_view content, bool overwrite);

}  // namespace distorch::server
