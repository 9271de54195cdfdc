#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

using weights::Part;

class LowRank final : public Change {
 public:
  LowRank(const weights::Adapter& adapter, const Extent& extent)
      : adapter_(adapter), extent_(extent) {}

  double unit(bool) const override {
    auto rank = static_cast<double>(adapter_.part(Part::Down).size(0));
    return adapter_.alpha ? *adapter_.alpha / rank : 1;
  }

  at::Tensor rows(const at::Tensor&, const Rows& which) const override {
    return at::mm(which.of(part(Part::Up, at::kFloat)), inner());
  }

  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before&,
                    const Products& products) const override {
    auto dtype = x.scalar_type();
    auto down = part(Part::Down, dtype), up = part(Part::Up, dtype);
    auto mid = part(Part::Mid, dtype);
    if (!mid.defined()) return products.mix_out(products.whole(x, down), up);
    return products.mix_out(products.whole(products.mix_in(x, down), mid), up);
  }

 private:
  at::Tensor part(Part which, at::ScalarType dtype) const {
    auto tensor = part_of(adapter_, which, dtype);
    return tensor.defined() ? tensor.flatten(1) : tensor;
  }

  /// Everything to the right of Up: [r, in · kernel]; with a kernel between the factors
  /// Σ_b mid[a, b, k] down[b, i].
  at::Tensor inner() const {
    auto down = part(Part::Down, at::kFloat);
    if (!adapter_.part(Part::Mid).defined()) return down;
    auto mid = adapter_.part(Part::Mid).to(at::kFloat).flatten(2);
    return at::einsum("abk,bi->aik", {mid, down}).flatten(1);
  }

  weights::Adapter adapter_;
  Extent extent_;
};

/// One factor of the product ∘, [out, in · kernel] as left · right.
struct Factor {
  at::Tensor left, right;
};

Factor factor(const weights::Adapter& adapter, Part first, Part second, Part core) {
  auto a = part_of(adapter, first, at::kFloat), b = part_of(adapter, second, at::kFloat);
  auto t = part_of(adapter, core, at::kFloat);
  if (!t.defined()) return {a, b};
  // t [i, j, kernel...], a [i, out], b [j, in].
  return {a.t(), at::einsum("ijk,jr->irk", {t.flatten(2), b}).flatten(1)};
}

class Hadamard final : public Change {
 public:
  explicit Hadamard(const weights::Adapter& adapter) : adapter_(adapter) {}

  double unit(bool) const override {
    auto rank = static_cast<double>(adapter_.part(Part::W1b).size(0));
    return adapter_.alpha ? *adapter_.alpha / rank : 1;
  }
  bool has_product() const override { return false; }

  at::Tensor rows(const at::Tensor&, const Rows& which) const override {
    auto first = factor(adapter_, Part::W1a, Part::W1b, Part::T1);
    auto second = factor(adapter_, Part::W2a, Part::W2b, Part::T2);
    return at::mm(which.of(first.left), first.right)
        .mul_(at::mm(which.of(second.left), second.right));
  }

  /// Only where rows cannot be changed and multiplied: some at a time, so that the change never
  /// exists as a whole.
  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before&,
                    const Products& products) const override {
    auto out = adapter_.part(Part::T1).defined() ? adapter_.part(Part::W1a).size(1)
                                                 : adapter_.part(Part::W1a).size(0);
    constexpr std::int64_t step = 256;
    std::vector<at::Tensor> parts;
    for (std::int64_t first = 0; first < out; first += step)
      parts.push_back(products.whole(
          x, rows({}, {first, std::min(step, out - first), {}}).to(x.scalar_type())));
    return at::cat(parts, products.channels());
  }

 private:
  weights::Adapter adapter_;
};

}  // namespace

std::unique_ptr<Change> low_rank(const weights::Adapter& adapter, const Extent& extent) {
  return std::make_unique<LowRank>(adapter, extent);
}

std::unique_ptr<Change> hadamard(const weights::Adapter& adapter, const Extent&) {
  return std::make_unique<Hadamard>(adapter);
}

}  // namespace distorch::nn
