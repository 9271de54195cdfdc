#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "distorch/formats/catalog.h"
#include "distorch/formats/tensor_file.h"

/// The safetensors format: 8 bytes little-endian header length, a JSON header, the tensors' bytes.
/// Source: the format's description and behaviour of the PyPI package `safetensors` (its rules are
/// checked in tests).
namespace distorch::formats {

/// What a header says; offsets count from the start of the file.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in file order
  TensorFile::Metadata metadata;
};

/// A header larger than this is refused, as by the official reader.
inline constexpr std::size_t safetensors_header_limit = 100'000'000;  // bytes

/// Opens a file; reads and checks its header, touches nothing else.
/// Error(Format): lengths that do not match the file, broken JSON, unknown dtype, a shape that
/// overflows or does not match the byte count, ranges that overlap or leave holes, a name twice.
TensorFile read_safetensors(const std::filesystem::path& path);

/// The same checks on the first bytes of a file: `head` must hold the header whole, `file_size` is
/// the size it claims to describe. `where` names the file in errors.
SafetensorsHeader parse_safetensors(std::span<const std::byte> head, std::size_t file_size,
                                    const std::string& where);

/// One tensor to be written: `bytes`, which must live until the call returns, or what `make` gives
/// when its turn comes, which must live until the next one's, so that not all are in memory at once.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::function<std::span<const std::byte>()> make;
  /// All zeros, as a hole of the file: neither `bytes` nor `make`.
  bool hole = false;
};

/// Writes a file that appears whole or not at all, laid out as the official writer does: wide types
/// first, then by name, header padded with spaces to 8 bytes. Error(Internal) if shape and bytes
/// disagree or a name occurs twice.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const TensorFile::Metadata& metadata = {});

/// Its line in catalog.cpp.
Format safetensors_format();

}  // namespace distorch::formats
