#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

using weights::Part;

/// The order of the factors is told by their shapes, for square weights by convention.
bool is_old_order(const weights::Adapter& adapter, const Extent& extent) {
  auto a1 = adapter.part(Part::A1).sizes(), a2 = adapter.part(Part::A2).sizes();
  auto b1 = adapter.part(Part::B1).sizes(), b2 = adapter.part(Part::B2).sizes();
  bool is_old = b2[1] == b1[0] && b1[0] == a1[0] && a1[0] == a2[1];
  bool is_new = b2[0] == b1[1] && b1[1] == a1[1] && a1[1] == a2[0];
  if (!is_new) return is_old;
  return is_old && a2[0] == extent.out && extent.out == extent.in;
}

class Generalized final : public Change {
 public:
  Generalized(const weights::Adapter& adapter, const Extent& extent)
      : adapter_(adapter), extent_(extent), is_old_(is_old_order(adapter, extent)) {}

  double unit(bool) const override {
    auto rank = is_old_ ? adapter_.part(Part::A1).size(0) : adapter_.part(Part::A2).size(0);
    return adapter_.alpha ? *adapter_.alpha / static_cast<double>(rank) : 1;
  }
  bool uses_weight() const override { return true; }

  at::Tensor rows(const at::Tensor& tile, const Rows& which) const override {
    auto a1 = part(Part::A1, at::kFloat), a2 = part(Part::A2, at::kFloat);
    auto b1 = part(Part::B1, at::kFloat), b2 = part(Part::B2, at::kFloat);
    if (is_old_) return at::mm(which.of(b2), b1).add_(at::mm(at::mm(tile, a2), a1));
    auto added = at::mm(which.of(b1), b2);
    auto channels = tile.unflatten(1, {extent_.in, extent_.kernel}).transpose(1, 2);
    auto mixed = at::matmul(at::matmul(channels, a1), a2);
    return added.add_(mixed.transpose(1, 2).flatten(1));
  }

  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before& before,
                    const Products& products) const override {
    auto changed = added(x, before, products);
    return is_old_ ? changed : changed.add_(before(mixed(x, products), products));
  }

  at::Tensor product(const at::Tensor& x, const Before& before, double amount,
                     const Products& products) const override {
    auto y = before(is_old_ ? x : at::add(x, mixed(x, products), amount), products);
    return y.add_(added(x, before, products), amount);
  }

 private:
  at::Tensor part(Part which, at::ScalarType dtype) const {
    return part_of(adapter_, which, dtype).flatten(1);
  }

  /// A · x, new order.
  at::Tensor mixed(const at::Tensor& x, const Products& products) const {
    auto dtype = x.scalar_type();
    return products.mix_in(products.mix_in(x, part(Part::A2, dtype)), part(Part::A1, dtype));
  }

  /// The rest: x · Bᵀ, in the old order with (W A2) A1.
  at::Tensor added(const at::Tensor& x, const Before& before, const Products& products) const {
    auto dtype = x.scalar_type();
    auto b1 = part(Part::B1, dtype), b2 = part(Part::B2, dtype);
    if (!is_old_) return products.mix_out(products.whole(x, b2), b1);
    auto left = before(part(Part::A2, dtype).t().contiguous(), LinearProducts(extent_.kernel)).t();
    auto y = products.mix_out(products.whole(x, part(Part::A1, dtype)), left);
    return y.add_(products.mix_out(products.whole(x, b1), b2));
  }

  weights::Adapter adapter_;
  Extent extent_;
  bool is_old_;
};

}  // namespace

std::unique_ptr<Change> generalized(const weights::Adapter& adapter, const Extent& extent) {
  return std::make_unique<Generalized>(adapter, extent);
}

}  // namespace distorch::nn
