#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "distorch/formats/dtype.h"
#include "distorch/formats/mapped_file.h"

namespace distorch::formats {

/// One tensor of a file: row-major, little-endian, no gaps.
struct TensorInfo {
  std::string name;
  DType dtype = DType::F32;
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::size_t offset_bytes = 0;     // from the start of the file
  std::size_t size_bytes = 0;
  /// How the numbers are packed where they are no elements of `dtype` ("Q4_K"): `shape` is then that
  /// of the numbers, `dtype` is U8, and every row of the last dimension is as many bytes as another.
  std::string packing;

  std::int64_t elements() const;
  ByteRange range() const { return {offset_bytes, size_bytes}; }
};

/// A weights file whose header has been read and checked: every range lies within the file, no name
/// occurs twice. The bytes of the tensors have not been touched. Move-only; keeps the mapping
/// alive.
class TensorFile {
 public:
  using Metadata = std::map<std::string, std::string>;

  TensorFile(std::shared_ptr<const MappedFile> mapping, std::string format,
             std::vector<TensorInfo> tensors, Metadata metadata);
  TensorFile(TensorFile&&) = default;
  TensorFile& operator=(TensorFile&&) = default;

  const std::filesystem::path& path() const { return mapping_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return mapping_; }
  /// "safetensors", ...
  const std::string& format() const { return format_; }
  /// In the order in which they lie in the file.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// nullptr where there is none of that name. Valid while this object lives.
  const TensorInfo* find(std::string_view name) const;
  /// The tensor's bytes inside the mapping; not necessarily aligned to the element size.
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;
  const Metadata& metadata() const { return metadata_; }
  /// Sum of all tensors.
  std::size_t tensor_bytes() const;

 private:
  std::shared_ptr<const MappedFile> mapping_;
  std::string format_;
  std::vector<TensorInfo> tensors_;
  Metadata metadata_;
  // views into tensors_ (its strings do not move)
  std::unordered_map<std::string_view, std::size_t> index_;
};

/// Opens a weights file of any known format (catalog.cpp holds the list): by content first, then by
/// extension. Errors: Error(MissingFile); Error(Format) with both numbers and the tensor's name
/// when the file lies.

TensorFile open_tensor_file(const std::filesystem::path& path);

}  // namespace distorch::formats
