#pragma once
#include <map>
#include <string>

#include "distorch/formats/mapped_file.h"

namespace distorch::formats {

/// Where the files of a zip archive lie in it, by name. Only archives that store their files as they
/// are (torch.save's do). Error(Format) where the directory lies, names a file twice or one that is
/// compressed.
std::map<std::string, ByteRange> zip_directory(const MappedFile& file);

}  // namespace distorch::formats
