#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/formats/tensor_file.h"
#include "distorch/quant/encoding.h"
#include "distorch/weights/manifest.h"

namespace distorch::weights {

/// One tensor of a checkpoint under the name a model asks for: a byte range of a file, and, where
/// the numbers are packed, those of the tensors that explain them. A range may be some rows of a
/// stored tensor (fused projections), never a rearrangement: homes keep bytes as they are.
struct Stored {
  std::shared_ptr<const formats::TensorFile> file;
  formats::DType dtype = formats::DType::F32;  // of the elements, as the file has them
  std::vector<std::int64_t> shape;             // of the weight
  // Of the file's own tensor, where packed numbers make it another than `shape`; else empty.
  std::vector<std::int64_t> value_shape;
  std::int64_t offset_bytes = 0;  // absolute in the file
  std::int64_t size_bytes = 0;
  const quant::Encoding* encoding = nullptr;  // null: plain numbers of `dtype`
  // Encoding::companions() in that order, without a file where absent; of a joined weight its pieces.
  std::vector<Stored> parts;

  formats::ByteRange range() const {
    return {static_cast<std::size_t>(offset_bytes), static_cast<std::size_t>(size_bytes)};
  }
};

/// The tensors of one model file under the names that our models use. Reads the header only, and
/// the markers that say how weights are packed. The companions of packed weights (scales, ...) are
/// no entries of their own. Error(Format) naming the weight where a marker names a way of packing
/// that is not known, or where its tensors do not fit it (packed_layers.h).
/// Families rename with add(): diffusers or OpenCLIP names to the original ones, rows of fused
/// tensors.
class Checkpoint {
 public:
  Checkpoint() = default;
  explicit Checkpoint(std::shared_ptr<const formats::TensorFile> file);

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  const Stored* find(const std::string& name) const;
  /// Shape of a tensor. Error(MissingWeight) naming file and tensor where it is absent.
  const std::vector<std::int64_t>& shape(const std::string& name) const;
  bool has_prefix(const std::string& prefix) const;
  /// The part below `prefix`, with the prefix replaced by `replacement`.
  Checkpoint part(const std::string& prefix, const std::string& replacement = "") const;
  /// Number of consecutive indices i = 0, 1, ... for which some name starts with `prefix` + i +
  /// ".".
  int count(const std::string& prefix) const;
  /// Adds (or replaces) a name; `first_row`, `rows` select rows of dimension 0 of `stored`.
  void add(const std::string& name, const Stored& stored);
  void add_rows(const std::string& name, const Stored& stored, std::int64_t first_row,
                std::int64_t rows);
  /// Adds a weight whose rows are those of several tensors in order (quant/joined.h), which may be
  /// packed, each in its own way: nothing is copied. Error(Shape) where their rows are unequal.
  void add_joined(const std::string& name, const std::vector<Stored>& pieces);
  /// Renames one tensor if it is there.
  void rename(const std::string& from, const std::string& to);

  const std::map<std::string, Stored>& tensors() const { return tensors_; }
  /// The file it was opened from, for messages.
  const std::string& path() const { return path_; }
  /// MappedFile::refresh() of every file its tensors lie in.
  void refresh_files() const;
  /// Bytes of all tensors.
  std::int64_t size_bytes() const;
  /// The dtype that most bytes have; F32 where there is none.
  formats::DType main_dtype() const;
  bool empty() const { return tensors_.empty(); }

 private:
  std::map<std::string, Stored> tensors_;
  std::string path_;
};

/// The tensor's bytes where they lie in the mapped file, as a CPU tensor that must not be written
/// to: nothing is read or copied until it is used. Keeps the file open. (Only a tensor that lies at
/// an odd address for its type is copied.)
at::Tensor mapped_tensor(const Stored& stored);

/// torch's dtype for a stored one. Error(Format) for types torch has not, naming the file.
at::ScalarType to_torch(const Stored& stored);

/// A weight's own tensor (of value_shape) and those of its parts that are there, as plain tensors:
/// everything that has to be brought for it.
std::vector<Stored> tensors_of(const Stored& stored);
/// What a packed weight is made of, from the tensors of tensors_of(), in that order.
quant::Packed packed_from(const Stored& stored, const at::Tensor* tensors);
/// A weight as plain numbers in `dtype` on the CPU, read from the mapped file.
at::Tensor read_dense(const Stored& stored, at::ScalarType dtype);
/// A copy of the tensor's bytes, which are those that the file had when it was opened: Error(Format)
/// where it was cut short or overwritten since.
at::Tensor read_tensor(const Stored& stored);

/// Checks that every declared, non-optional weight is there with its shape. Throws one
/// Error(MissingWeight) or Error(Shape) that names all faults at once (the first 20 in words, then
/// their number).
void check_complete(const Manifest& manifest, const Checkpoint& checkpoint,
                    const std::string& what);

}  // namespace distorch::weights
