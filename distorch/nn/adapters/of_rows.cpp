#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

class OfRows final : public Change {
 public:
  OfRows(std::unique_ptr<Change> inner, const Extent& extent, std::int64_t first,
         std::int64_t count)
      : inner_(std::move(inner)), extent_(extent), first_(first), count_(count) {}

  double unit(bool has_magnitude) const override { return inner_->unit(has_magnitude); }
  bool has_product() const override { return inner_->has_product(); }

  at::Tensor rows(const at::Tensor& tile, const Rows& which) const override {
    auto result = at::zeros_like(tile);
    if (which.ids.defined()) {
      // The rows that are not changed take the first one's numbers, which count nothing.
      auto ids = which.ids - first_;
      auto inside = ids.ge(0).logical_and(ids.lt(count_));
      auto changed = inner_->rows({}, {0, 0, ids.clamp(0, count_ - 1)});
      return changed * inside.to(changed.scalar_type()).unsqueeze(1);
    }
    auto from = std::max(which.first, first_);
    auto to = std::min(which.first + which.count, first_ + count_);
    if (from < to)
      result.narrow(0, from - which.first, to - from)
          .copy_(inner_->rows({}, {from - first_, to - from, {}}));
    return result;
  }

  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before& before,
                    const Products& products) const override {
    auto part = inner_->change(x, {}, before, products);
    auto dim = products.channels() < 0 ? part.dim() + products.channels() : products.channels();
    auto sizes = part.sizes().vec();
    sizes[dim] = extent_.out;
    auto result = at::zeros(sizes, part.options());
    result.narrow(dim, first_, count_).copy_(part);
    return result;
  }

  at::Tensor product(const at::Tensor& x, const Before& before, double amount,
                     const Products& products) const override {
    auto y = before(x, products);
    y.narrow(products.channels(), first_, count_)
        .add_(inner_->change(x, {}, before, products), amount);
    return y;
  }

 private:
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
