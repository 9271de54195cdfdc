#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "distorch/nn/adapters/change.h"
#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// Rows of a changed weight that exist at a time, in float32. Some copies of as much are made on the
/// way, so a layer with adapters needs a few times this much beside its activations, at most.
inline constexpr std::int64_t kTileBytes = std::int64_t{16} << 20;

/// A weight with its adapters, in ComfyUI's order: each changes what those before it made of the
/// weight. The changed weight never exists as a whole. Two ways:
///  * By products, where every change has a cheap one: the layer's product is taken once, changes
///    are added to its output, mix its output (rotations) or its input (GLoRA); a magnitude scales
///    the output's or the input's channels. Rows' norms take one reading of the weight, columns'
///    norms one of the changed weight, by tiles, each time.
///  * By rows, where some change has none (LoHa, full differences, replacements) or the weight is
///    reshaped: some rows at a time are changed in float32, converted and multiplied.
/// Both work for resident, streamed and packed weights; `tile_bytes` is for tests.
class Chain {
 public:
  explicit Chain(const weights::Weight& weight, std::int64_t tile_bytes = kTileBytes);

  /// x through the layer, with its bias.
  at::Tensor product(const at::Tensor& x, const Products& products,
                     const std::optional<at::Tensor>& bias) const;
  /// The changed weight [shape] in the weight's dtype; for small ones.
  at::Tensor whole() const;
  /// Rows of the changed weight [n, columns] in the weight's dtype, by their numbers. Butterflies
  /// and rotations mix rows: then the whole weight is made first.
  at::Tensor rows(const at::Tensor& ids) const;

 private:
  struct Step {
    std::unique_ptr<Change> change;
    double strength = 1;
    at::Tensor magnitude;  // float32, a number a row or a column; undefined: none
    bool by_output = false;
    /// The rows that magnitudes of columns count for; no rows: all.
    std::int64_t first = 0, rows = 0;
    /// What the weight is padded to first.
    std::vector<std::int64_t> shape;
    /// Once they are known.
    mutable at::Tensor column_norms;
  };

  void add(const weights::Adapter& adapter);
  bool rows_fit() const;
  std::int64_t tile_rows() const;
  template <typename Visit>
  void for_tiles(const Visit& visit) const;
  at::Tensor base_rows(const Rows& rows) const;
  static at::Tensor only_own(const Step& step, const Rows& rows, const at::Tensor& changed,
                             const at::Tensor& otherwise);
  at::Tensor rows_after(std::size_t steps, const Rows& rows) const;
  at::Tensor rows_before(std::size_t step, const Rows& rows) const;
  at::Tensor row_norms(std::size_t step) const;
  at::Tensor column_norms(std::size_t step) const;
  at::Tensor column_norms_by_rows(std::size_t step) const;
  at::Tensor norms_by_products(std::size_t step, bool of_rows) const;
  at::Tensor product_after(std::size_t steps, const at::Tensor& x, const Products& products,
                           const std::optional<at::Tensor>& bias = {}) const;
  at::Tensor with_magnitude(const Step& step, std::size_t index, const at::Tensor& x,
                            const Products& products) const;
  at::Tensor product_by_rows(const at::Tensor& x, const Products& products) const;

  weights::Weight weight_;
  at::Tensor base_;  // what a replacement put in the weight's place; undefined: none
  std::vector<std::int64_t> shape_;
  std::vector<Step> steps_;
  std::int64_t tile_bytes_, granule_ = 1;
  bool by_rows_ = false, is_reshaped_ = false;
};

}  // namespace distorch::nn
