#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

using weights::Part;

class Kronecker final : public Change {
 public:
  Kronecker(const weights::Adapter& adapter, const Extent& extent)
      : adapter_(adapter), extent_(extent) {}

  double unit(bool) const override {
    // Of two factored matrices the second one's rank counts, of two whole ones none.
    for (auto part : {Part::W2b, Part::W1b}) {
      auto whole = adapter_.part(part == Part::W2b ? Part::W2 : Part::W1);
      if (!whole.defined() && adapter_.alpha)
        return *adapter_.alpha / static_cast<double>(adapter_.part(part).size(0));
    }
    return 1;
  }

  /// The input has to split into equal parts of whole channels.
  bool has_product() const override {
    auto groups = adapter_.part(Part::W1).defined() ? adapter_.part(Part::W1).size(1)
                                                    : adapter_.part(Part::W1b).size(1);
    return extent_.in % groups == 0;
  }

  at::Tensor rows(const at::Tensor& tile, const Rows& which) const override {
    auto first = outer(at::kFloat), second = inner();
    auto numbers = which.numbers(first.device());
    auto a = first.index_select(0, at::floor_divide(numbers, second.size(0)));
    auto c = second.index_select(0, at::remainder(numbers, second.size(0)));
    return (a.unsqueeze(2) * c.unsqueeze(1)).flatten(1);
  }

  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before&,
                    const Products& products) const override {
    auto dtype = x.scalar_type();
    auto matrix = outer(dtype);
    auto parts = products.split_in(x, matrix.size(1));
    return products.join_out(by_second(parts, products), matrix);
  }

 private:
  at::Tensor part(Part which, at::ScalarType dtype) const {
    return part_of(adapter_, which, dtype);
  }

  /// W1 [a, b].
  at::Tensor outer(at::ScalarType dtype) const {
    auto whole = part(Part::W1, dtype);
    if (!whole.defined()) return at::mm(part(Part::W1a, dtype), part(Part::W1b, dtype));
    return whole.dim() > 2 ? whole.flatten(1) : whole;
  }

  /// W2 as float32 [c, d · kernel].
  at::Tensor inner() const {
    auto whole = part(Part::W2, at::kFloat);
    if (whole.defined()) return whole.flatten(1);
    auto a = part(Part::W2a, at::kFloat), b = part(Part::W2b, at::kFloat);
    auto t = part(Part::T2, at::kFloat);
    if (!t.defined()) return at::mm(a, b);
    return at::einsum("ijk,jr,ip->prk", {t.flatten(2), b, a}).flatten(1);
  }

  at::Tensor by_second(const at::Tensor& x, const Products& products) const {
    auto dtype = x.scalar_type();
    if (auto whole = part(Part::W2, dtype); whole.defined()) return products.whole(x, whole);
    auto a = part(Part::W2a, dtype), b = part(Part::W2b, dtype), t = part(Part::T2, dtype);
    if (!t.defined()) return products.mix_out(products.whole(x, b), a);
    return products.mix_out(products.whole(products.mix_in(x, b), t), a.t());
  }

  weights::Adapter adapter_;
  Extent extent_;
};

}  // namespace

std::unique_ptr<Change> kronecker(const weights::Adapter& adapter, const Extent& extent) {
  return std::make_unique<Kronecker>(adapter, extent);
}

}  // namespace distorch::nn
