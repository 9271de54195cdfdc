#include "distorch/nn/adapters/change.h"

#include "distorch/base/error.h"

namespace distorch::nn {

using weights::AdapterKind;
using weights::Part;

at::Tensor Rows::of(const at::Tensor& tensor) const {
  return ids.defined() ? tensor.index_select(0, ids) : tensor.narrow(0, first, count);
}

at::Tensor Rows::numbers(at::Device device) const {
  if (ids.defined()) return ids;
  return at::arange(first, first + count, at::TensorOptions().dtype(at::kLong).device(device));
}

Extent::Extent(at::IntArrayRef shape) {
  if (!shape.empty()) out = shape[0];
  if (shape.size() > 1) in = shape[1];
  for (std::size_t i = 2; i < shape.size(); ++i) kernel *= shape[i];
}

at::Tensor Change::product(const at::Tensor& x, const Before& before, double amount,
                           const Products& products) const {
  auto y = before(x, products);
  auto changed = change(x, y, before, products);
  return y.add_(changed, amount);
}

namespace {

std::unique_ptr<Change> of_kind(const weights::Adapter& adapter, const Extent& extent) {
  switch (adapter.kind) {
    case AdapterKind::LowRank: return low_rank(adapter, extent);
    case AdapterKind::Hadamard: return hadamard(adapter, extent);
    case AdapterKind::Kronecker: return kronecker(adapter, extent);
    case AdapterKind::Generalized: return generalized(adapter, extent);
    case AdapterKind::Rotation: return rotation(adapter, extent);
    case AdapterKind::Butterfly: return butterfly(adapter, extent);
    case AdapterKind::Difference: return difference(adapter, extent);
    case AdapterKind::Replacement: break;
  }
  throw Error(ErrorKind::Internal, "LoRA", "a replacement is not a change");
}

}  // namespace

std::unique_ptr<Change> change_of(const weights::Adapter& adapter, const Extent& extent) {
  if (adapter.rows == 0) return of_kind(adapter, extent);
  auto part = extent;
  part.out = adapter.rows;
  return of_rows(of_kind(adapter, part), extent, adapter.first_row, adapter.rows);
}

at::Tensor part_of(const weights::Adapter& adapter, Part part, at::ScalarType dtype) {
  auto tensor = adapter.part(part);
  return tensor.defined() ? tensor.to(dtype) : tensor;
}

namespace {

class Difference final : public Change {
 public:
  Difference(const weights::Adapter& adapter, const Extent& extent)
      : value_(adapter.part(Part::Value).reshape({extent.out, extent.columns()})) {}
  double unit(bool) const override { return 1; }
  bool has_product() const override { return false; }
  at::Tensor rows(const at::Tensor&, const Rows& which) const override {
    return which.of(value_).to(at::kFloat);
  }
  at::Tensor change(const at::Tensor& x, const at::Tensor&, const Before&,
                    const Products& products) const override {
    return products.whole(x, value_.to(x.scalar_type()));
  }

 private:
  at::Tensor value_;  // [out, columns]
};

}  // namespace

std::unique_ptr<Change> difference(const weights::Adapter& adapter, const Extent& extent) {
  return std::make_unique<Difference>(adapter, extent);
}

}  // namespace distorch::nn
