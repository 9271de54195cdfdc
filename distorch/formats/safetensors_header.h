#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/formats/tensor_file.h"

/// The JSON of a safetensors header, read but not yet compared with the file. Private to this
/// folder.
namespace distorch::formats {

struct HeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> data_offsets;  // {begin, end}, from the end of the header
  bool has_dtype = false;
  bool has_shape = false;
  bool has_offsets = false;
};

struct HeaderJson {
  std::vector<HeaderEntry> entries;
  TensorFile::Metadata metadata;
};

/// Error(Format, where): broken JSON, a value of the wrong kind, a name or key given twice. Unknown
/// keys of a tensor are skipped, as the official reader does.
HeaderJson read_header_json(std::string_view text, const std::string& where);

}  // namespace distorch::formats
