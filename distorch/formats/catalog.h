#pragma once
#include <string_view>
#include <vector>

#include "distorch/formats/tensor_file.h"

namespace distorch::formats {

/// One way in which weights lie in a file.
struct Format {
  const char* name;
  std::vector<std::string_view> extensions;  // lower case, with the dot
  /// Whether a file that starts with these bytes (up to 64) is of this format.
  bool (*recognises)(std::string_view head);
  TensorFile (*read)(const std::filesystem::path& path);
};

/// Every format known here. A new one is its own file and one line in catalog.cpp.
const std::vector<Format>& all_formats();

}  // namespace distorch::formats
