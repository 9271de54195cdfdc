#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "distorch/formats/catalog.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/formats/tensor_file.h"

/// The GGUF format, versions 2 and 3, little-endian: named values, tensor descriptions, aligned
/// tensor bytes. Source: the format's description (ggml, docs/gguf.md), the PyPI package `gguf`
/// (GGUFReader), and ComfyUI-GGUF loader.py for "comfy.gguf.orig_shape.NAME".
namespace distorch::formats {

/// How the header's values are stored.
enum class GgufType : std::uint32_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64
};

/// An array of the header where it lies in the file: gguf_strings() and gguf_numbers() read it.
struct GgufArray {
  GgufType element = GgufType::U8;
  std::uint64_t count = 0;
  std::size_t offset_bytes = 0;  // of the first element, from the start of the file
  std::size_t size_bytes = 0;
};
using GgufValue = std::variant<bool, std::uint64_t, std::int64_t, double, std::string, GgufArray>;

/// What a header says; offsets count from the start of the file, dimensions are in torch's order
/// (the last one lies together), or as "comfy.gguf.orig_shape.NAME" says.
struct GgufHeader {
  std::uint32_t version = 0;
  std::map<std::string, GgufValue> values;
  std::vector<TensorInfo> tensors;  // in file order
};

/// Where the bytes come from: fills `to` with those from `offset` on, which lie within the file.
using ByteReader = std::function<void(std::size_t offset, std::span<std::byte> to)>;

/// Reads and checks a header. Error(Format), naming `where`, the value or tensor and the byte: big
/// endian or another version; counts, lengths or offsets beyond the file; types that are not known
/// or no longer used; rows that are no whole blocks; shapes that overflow or do not match; tensors
/// that overlap, are not aligned or occur twice. Memory stays below a small multiple of the file.
GgufHeader parse_gguf(const ByteReader& read, std::size_t file_size, const std::string& where);

/// The header of an open file, for what TensorFile::metadata() leaves out.
GgufHeader gguf_header(const MappedFile& file);
/// Strings or numbers of an array; Error(Format) where it holds other things.
std::vector<std::string> gguf_strings(const MappedFile& file, const GgufArray& array);
std::vector<double> gguf_numbers(const MappedFile& file, const GgufArray& array);

/// Opens a file: its tensors, and as metadata the values that are no arrays, as text.
/// Error(Format) beside those of parse_gguf(): one file of several ("split.count") under a name that
/// does not say so.
TensorFile read_gguf(const std::filesystem::path& path);

/// Its line in catalog.cpp.
Format gguf_format();

}  // namespace distorch::formats
