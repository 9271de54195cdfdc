#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

using at::Tensor;

class OfRows final : public Change {
 public:
  OfRows(std::unique_ptr<Change> inner, const Extent& extent, std::int64_t first,
         std::int64_t count)
      : inner_(std::move(inner)), extent_(extent), first_(first), count_(count) {}

  double unit(bool has_magnitude) const override { return inner_->unit(has_magnitude); }
  bool uses_weight() const override { return inner_->uses_weight(); }
  bool has_product() const override { return inner_->has_product(); }
  std::int64_t granule() const override {
    auto own = inner_->granule();
    return first_ % own == 0 && count_ % own == 0 ? own : extent_.out;
  }

  Tensor rows(const Tensor& tile, const Rows& which) const override {
    if (which.ids.defined()) {
      // The rows that are not changed take numbers of others, which count nothing.
      auto ids = which.ids - first_;
      auto inside = ids.ge(0).logical_and(ids.lt(count_));
      auto changed = inner_->rows(tile, {0, 0, ids.clamp(0, count_ - 1)});
      return changed * inside.to(changed.scalar_type()).unsqueeze(1);
    }
    auto result = at::zeros_like(tile);
    auto from = std::max(which.first, first_);
    auto to = std::min(which.first + which.count, first_ + count_);
    if (from >= to) return result;
    auto part = [&](const Tensor& all) { return all.narrow(0, from - which.first, to - from); };
    part(result).copy_(inner_->rows(part(tile), {from - first_, to - from, {}}));
    return result;
  }

  Tensor change(const Tensor& x, const Tensor& y, const Before& before,
                const Products& products) const override {
    auto part = changed(x, y, before, products);
    auto dim = products.channels() < 0 ? part.dim() + products.channels() : products.channels();
    auto sizes = part.sizes().vec();
    sizes[dim] = extent_.out;
    auto result = at::zeros(sizes, part.options());
    result.narrow(dim, first_, count_).copy_(part);
    return result;
  }

  Tensor product(const Tensor& x, const Before& before, double amount,
                 const Products& products) const override {
    auto y = before(x, products);
    auto part = changed(x, y, before, products);
    y.narrow(products.channels(), first_, count_).add_(part, amount);
    return y;
  }

 private:
  /// What the inner change makes of the outputs of these rows alone.
  Tensor changed(const Tensor& x, const Tensor& y, const Before& before,
                 const Products& products) const {
    auto own = [&](const Tensor& all, const Products& its) {
      return all.defined() ? all.narrow(its.channels(), first_, count_) : all;
    };
    const Before own_before = [&](const Tensor& input, const Products& its) {
      return own(before(input, its), its);
    };
    return inner_->change(x, own(y, products), own_before, products);
  }

  std::unique_ptr<Change> inner_;
  Extent extent_;
  std::int64_t first_, count_;
};

}  // namespace

std::unique_ptr<Change> of_rows(std::unique_ptr<Change> inner, const Extent& extent,
                                std::int64_t first, std::int64_t count) {
  return std::make_unique<OfRows>(std::move(inner), extent, first, count);
}

}  // namespace distorch::nn
