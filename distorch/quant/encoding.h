#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "distorch/formats/dtype.h"
#include "distorch/quant/packed.h"

namespace distorch::quant {

/// A tensor that a packed weight needs beside its own: "layer.scale_weight" for "layer.weight".
struct Companion {
  /// How files call it, beside the weight's name without its last part ("weight").
  std::vector<std::string> names;
  bool optional = false;
};

/// A tensor of a file, to be looked at before it is used; without bytes where the file has none.
struct FileTensor {
  std::string name;  // beside the weight's, without its last part: "weight_scale"
  formats::DType dtype = formats::DType::F32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // where they lie in the file; not necessarily aligned
  bool is_there() const { return bytes.data() != nullptr; }
};

/// What a weight of a file turns out to be.
struct Reading {
  const Encoding* encoding = nullptr;
  std::vector<std::int64_t> shape;   // of the weight
  std::vector<std::int64_t> values;  // of the tensor that holds its numbers, by the same bytes
  /// Of the companions, by the same bytes; nothing: the weight needs it no more, or has none.
  std::vector<std::optional<std::vector<std::int64_t>>> parts;
};

/// One way of packing numbers. To add one: a file here and a line in the list of encoding.cpp.
class Encoding {
 public:
  virtual ~Encoding() = default;
  /// As ComfyUI's "comfy_quant" markers call it: "float8_e4m3fn", ...
  virtual std::string_view name() const = 0;
  virtual const std::vector<Companion>& companions() const = 0;
  /// What a "comfy_quant" marker has to say for a weight to be read so again: JSON.
  virtual std::string marker() const;
  /// Whether a weight of this element type with these companions (one entry each, whether the file
  /// has it) is packed so, where no marker says.
  virtual bool matches(formats::DType dtype, const std::vector<bool>& present) const = 0;
  /// What is wrong with a weight's tensors, as the end of a sentence that begins with the weight's
  /// name ("has no 'weight_scale'"); empty: nothing. Values are looked at where they are few (a
  /// scale for the tensor or for each row), never the weight's own.
  virtual std::string fault(const FileTensor& values,
                            const std::vector<FileTensor>& companions) const;
  /// The shape of the weight that a tensor of this shape with companions of these (empty where the
  /// file has none) stands for. The same, unless a subclass says otherwise.
  virtual std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& companions) const;
  /// What a weight without a fault() is. As its tensors say, with shape_of(), unless a subclass reads
  /// more. Error(Format) where that says what cannot be; `where` names file and weight.
  virtual Reading reading(const FileTensor& values, const std::vector<FileTensor>& companions,
                          const std::string& where) const;
  /// Writers fill the dimensions of a weight up to multiples of this, with zeros; 1: they don't.
  /// decode() leaves out what columns the shape has not.
  virtual std::int64_t padding() const { return 1; }
  /// [shape] in `dtype` on the weight's device.
  virtual at::Tensor decode(const Packed& weight, at::ScalarType dtype) const = 0;

  /// Whether weights stay packed wherever they rest, even where decoding them once would be faster.
  virtual bool rests_packed() const { return false; }
  /// The same for a model that computes on that device.
  virtual bool rests_packed_for(at::Device /*compute*/) const { return rests_packed(); }
  /// x · Wᵀ + bias on the last dimension, in x's dtype, by the arithmetic that the encoding is made
  /// for: x [..., in], bias [out] or undefined -> [..., out]. Undefined where there is none for x.
  virtual at::Tensor product(const at::Tensor& x, const Packed& weight,
                             const at::Tensor& bias) const;

  /// The same for layers whose inputs must not be rounded ("full_precision_matrix_mult"): it has no
  /// product. This one, where it has none anyway.
  virtual const Encoding* decoded() const { return this; }

  /// Rows `first` .. `first + count - 1` of dimension 0; parts that go by rows are cut too.
  virtual Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const;
  /// Which rows {first, count} of the companion with index `part`, of that shape, those rows of a
  /// weight of `all` rows need; nothing: it counts for all of them and is kept whole.
  virtual std::optional<std::pair<std::int64_t, std::int64_t>> part_rows(
      std::size_t part, const std::vector<std::int64_t>& shape, std::int64_t all,
      std::int64_t first, std::int64_t count) const;
  /// How the rows from `first` on of a weight of this shape are packed, where their companions are
  /// cut by part_rows().
  virtual const Encoding* from_row(std::int64_t first,
                                   const std::vector<std::int64_t>& shape) const {
    return this;
  }
  /// How many rows from `first` on can be decoded without being put together from several tensors.
  virtual std::int64_t rows_in_one(const Packed& weight, std::int64_t first) const;
};

/// The list.
const std::vector<const Encoding*>& encodings();
/// Null for an unknown name.
const Encoding* encoding_named(std::string_view name);

}  // namespace distorch::quant
