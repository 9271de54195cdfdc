#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "distorch/nn/adapters/products.h"
#include "distorch/weights/adapter.h"

namespace distorch::nn {

/// Some rows of a weight: those of `ids` where that is defined, else `count` from `first` on.
struct Rows {
  std::int64_t first = 0, count = 0;
  at::Tensor ids;  // int64, on the weight's device

  /// These rows of a tensor.
  at::Tensor of(const at::Tensor& tensor) const;
  /// Their numbers, int64 on `device`.
  at::Tensor numbers(at::Device device) const;
};

/// x -> x · Wᵀ for the weight W that a change is made to, by whatever changed it before, too.
using Before = std::function<at::Tensor(const at::Tensor& x, const Products& products)>;

/// The arithmetic of one kind of adapter: the change D(W) of a weight W [out, in, kernel...], without
/// the factor that it is added with and without a magnitude. Everything is known through products
/// or through rows, so that W is never copied as a whole.
class Change {
 public:
  virtual ~Change() = default;
  /// What D(W) is multiplied with beside the strength: alpha / rank for most.
  virtual double unit(bool has_magnitude) const = 0;
  /// Whether D(W) depends on W.
  virtual bool uses_weight() const { return false; }
  /// Whether change() is cheaper than the layer's own product; if not, rows are changed and
  /// multiplied.
  virtual bool has_product() const { return true; }
  /// rows() wants whole multiples of so many rows, beginning at one.
  virtual std::int64_t granule() const { return 1; }
  /// These rows of D(W) as float32 [n, in · kernel], from the same rows of W (float32).
  virtual at::Tensor rows(const at::Tensor& tile, const Rows& which) const = 0;
  /// x · D(W)ᵀ. y = x · Wᵀ, defined where uses_weight().
  virtual at::Tensor change(const at::Tensor& x, const at::Tensor& y, const Before& before,
                            const Products& products) const = 0;
  /// x · (W + amount · D(W))ᵀ.
  virtual at::Tensor product(const at::Tensor& x, const Before& before, double amount,
                             const Products& products) const;
};

/// A weight's dimensions as the changes see them.
struct Extent {
  explicit Extent(at::IntArrayRef shape);
  std::int64_t out = 1, in = 1, kernel = 1;
  std::int64_t columns() const { return in * kernel; }
};

/// The arithmetic of an adapter that fits a weight of that extent, or its rows (weights::misfit).
/// Not for Replacement, which is no change.
std::unique_ptr<Change> change_of(const weights::Adapter& adapter, const Extent& extent);

// Each kind; what it costs stands with it.

/// Up · (Mid ·) Down: two (three) products of rank r beside the layer's. Rows: r multiplications an
/// element.
std::unique_ptr<Change> low_rank(const weights::Adapter& adapter, const Extent& extent);
/// (W1a · W1b) ∘ (W2a · W2b): no cheap product; rows: 2r multiplications an element.
std::unique_ptr<Change> hadamard(const weights::Adapter& adapter, const Extent& extent);
/// W1 [a, b] ⊗ W2 [c, d, kernel]: the input is split in b parts, each multiplied by W2, the results
/// mixed by W1. Costs 1/a of the layer's product and a little; W2's factors are never multiplied.
std::unique_ptr<Change> kronecker(const weights::Adapter& adapter, const Extent& extent);
/// W · A + B with A and B of rank r: the input is mixed before the layer's product, B is added as a
/// low-rank product. The old order mixes input channels and kernel: W · A2 is made first, [out, r].
std::unique_ptr<Change> generalized(const weights::Adapter& adapter, const Extent& extent);
/// Rotations of blocks of rows: the output's channels are rotated after the product. R comes from
/// its generator by multiplications only (no solver, which would wait for the device).
std::unique_ptr<Change> rotation(const weights::Adapter& adapter, const Extent& extent);
std::unique_ptr<Change> butterfly(const weights::Adapter& adapter, const Extent& extent);
/// A full difference: no cheap product; rows: one addition an element.
std::unique_ptr<Change> difference(const weights::Adapter& adapter, const Extent& extent);

/// `inner` on `count` rows of a weight from `first` on; nothing happens to the others. One that
/// depends on the weight takes the layer's product once more than it does on a whole weight.
std::unique_ptr<Change> of_rows(std::unique_ptr<Change> inner, const Extent& extent,
                                std::int64_t first, std::int64_t count);

/// A part of an adapter in `dtype`; undefined where there is none.
at::Tensor part_of(const weights::Adapter& adapter, weights::Part part, at::ScalarType dtype);

}  // namespace distorch::nn
