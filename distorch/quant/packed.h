#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace distorch::quant {

class Encoding;

/// A weight that is not a tensor of plain numbers: its bytes as the file has them, and what is
/// needed to read them. Nothing is copied: the tensors are views of where the bytes lie.
struct Packed {
  const Encoding* encoding = nullptr;
  at::Tensor values;              // the numbers themselves, rows first, in the file's element type
  std::vector<at::Tensor> parts;  // what Encoding::companions() names, in that order
  std::vector<std::int64_t> shape;  // of the weight that this stands for

  at::Device device() const { return values.device(); }
  /// Rows `first` .. `first + count - 1` of dimension 0; parts that go by rows are cut too.
  Packed rows(std::int64_t first, std::int64_t count) const;
  /// The same weight on another device.
  Packed to(at::Device device, bool non_blocking = false) const;
  /// The same numbers as [shape[0], the rest]: what a matrix product multiplies with.
  Packed as_matrix() const;
};

/// All of a weight as plain numbers: [shape] in `dtype`, on its device.
at::Tensor decode(const Packed& weight, at::ScalarType dtype);

/// y = x · Wᵀ + bias on the last dimension, in x's dtype: x [..., in], W [out, in] (the trailing
/// dimensions of a 1x1 convolution are taken together), bias [out] or undefined -> [..., out].
/// Large weights are decoded some rows at a time, so that no whole copy exists beside the bytes.
at::Tensor linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias);

}  // namespace distorch::quant
