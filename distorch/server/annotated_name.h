#pragma once
#include <filesystem>
#include <string>

#include "distorch/server/surroundings.h"

namespace distorch::server {

/// "a.png [output]" means the file a.png of that folder, whatever type is given beside it.
struct AnnotatedName {
  std::string name;
  std::string type;  // "input", "output", "temp", or "" where the name says nothing
};
AnnotatedName annotated_name(const std::string& text);

/// How a file of the user's folders is addressed: name, subfolder, type.
struct FileAddress {
  std::string name;
  std::string subfolder;
  std::string type;
};

/// The file's place, which may be empty. Error(Usage): a type that is none, a name that is refused
/// by confined_file() or holds ".." at all. Error(Usage, "subfolder") where that one is refused, so
/// that callers can answer otherwise.
std::filesystem::path place_of(const FileAddress& address, const FileFolders& folders);

}  // namespace distorch::server
