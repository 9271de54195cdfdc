#pragma once
#include <string>
#include <string_view>
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

/// One way of packing numbers. To add one: a file here and a line in the list of encoding.cpp.
class Encoding {
 public:
  virtual ~Encoding() = default;
  /// As ComfyUI's "comfy_quant" markers call it: "float8_e4m3fn", ...
  virtual std::string_view name() const = 0;
  virtual const std::vector<Companion>& companions() const = 0;
  /// Whether a weight of this element type with these companions (one entry each, whether the file
  /// has it) is packed so, where no marker says.
  virtual bool matches(formats::DType dtype, const std::vector<bool>& present) const = 0;
  /// The shape of the weight that a tensor of this shape with companions of these (empty where the
  /// file has none) stands for. The same, unless a subclass says otherwise.
  virtual std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& companions) const;
  /// [shape] in `dtype` on the weight's device.
  virtual at::Tensor decode(const Packed& weight, at::ScalarType dtype) const = 0;
  /// Rows `first` .. `first + count - 1` of dimension 0; parts that go by rows are cut too.
  virtual Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const;
  /// How many rows from `first` on can be decoded without being put together from several tensors.
  virtual std::int64_t rows_in_one(const Packed& weight, std::int64_t first) const;
};

/// The list.
const std::vector<const Encoding*>& encodings();
/// Null for an unknown name.
const Encoding* encoding_named(std::string_view name);

}  // namespace distorch::quant
