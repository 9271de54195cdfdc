#include "distorch/nn/adapters/chain.h"

#include <limits>
#include <numeric>

namespace distorch::nn {
namespace {

using at::Tensor;
using weights::AdapterKind;
using weights::Part;

constexpr double norm_epsilon = std::numeric_limits<float>::epsilon();

/// A tile [n, in · kernel] with zeros up to the columns of another shape.
Tensor pad_columns(const Tensor& tile, const std::vector<std::int64_t>& from,
                   const std::vector<std::int64_t>& to) {
  auto sizes = from;
  sizes[0] = tile.size(0);
  std::vector<std::int64_t> pad;
  for (auto i = sizes.size(); i-- > 1;) {
    pad.push_back(0);
    pad.push_back(to[i] - from[i]);
  }
  return at::constant_pad_nd(tile.reshape(sizes), pad).flatten(1);
}

/// What rows of these norms are multiplied with; a row without a magnitude (NaN) stays as it is.
Tensor row_factors(const Tensor& magnitude, const Tensor& norms) {
  return at::where(at::isnan(magnitude), at::ones_like(norms), magnitude / norms);
}

}  // namespace

Chain::Chain(const weights::Weight& weight, std::int64_t tile_bytes)
    : weight_(weight), shape_(weight.shape()), tile_bytes_(tile_bytes) {
  for (const auto& adapter : weight.adapters()) add(adapter);
  // Rows that have to come together may be too many; everything has some product.
  by_rows_ = by_rows_ && rows_fit();
}

void Chain::add(const weights::Adapter& adapter) {
  if (adapter.kind == AdapterKind::Replacement) {
    base_ = adapter.part(Part::Value);
    steps_.clear();
    shape_ = weight_.shape();
    granule_ = 1;
    is_reshaped_ = false;
    by_rows_ = true;
    return;
  }
  Step step{.change = nullptr, .strength = adapter.strength};
  step.shape = adapter.reshape.empty() ? shape_ : adapter.reshape;
  is_reshaped_ = is_reshaped_ || step.shape != shape_;
  shape_ = step.shape;
  const bool some = adapter.rows > 0;
  step.change = change_of(adapter, Extent(shape_));
  if (auto magnitude = adapter.part(Part::Magnitude); magnitude.defined()) {
    step.by_output = magnitude.size(0) == (some ? adapter.rows : shape_[0]);
    step.magnitude = magnitude.to(at::kFloat).flatten();
    if (some && !step.by_output) {
      step.first = adapter.first_row;
      step.rows = adapter.rows;
    }
    if (some && step.by_output)
      step.magnitude = at::constant_pad_nd(
          step.magnitude, {adapter.first_row, shape_[0] - adapter.first_row - adapter.rows},
          std::numeric_limits<double>::quiet_NaN());
  }
  by_rows_ = by_rows_ || is_reshaped_ || !step.change->has_product();
  granule_ = std::lcm(granule_, step.change->granule());
  steps_.push_back(std::move(step));
}

// --- rows

bool Chain::rows_fit() const {
  auto row_bytes = Extent(shape_).columns() * static_cast<std::int64_t>(sizeof(float));
  return is_reshaped_ || granule_ * row_bytes <= tile_bytes_;
}

std::int64_t Chain::tile_rows() const {
  auto row_bytes = Extent(shape_).columns() * static_cast<std::int64_t>(sizeof(float));
  auto fit = tile_bytes_ / std::max<std::int64_t>(1, row_bytes) / granule_;
  return std::max<std::int64_t>(1, fit) * granule_;
}

/// Calls `visit` with all rows, some at a time.
template <typename Visit>
void Chain::for_tiles(const Visit& visit) const {
  auto step = tile_rows(), all = Extent(shape_).out;
  for (std::int64_t first = 0; first < all; first += step)
    visit(Rows{first, std::min(step, all - first), {}});
}

/// Of the weight as it is stored (or of what replaces it): [n, columns], in any dtype.
Tensor Chain::base_rows(const Rows& rows) const {
  Extent extent(weight_.shape());
  if (base_.defined()) return rows.of(base_.reshape({extent.out, extent.columns()}));
  auto found = rows.ids.defined() ? weight_.dense().index_select(0, rows.ids)
                                  : weight_.rows(rows.first, rows.count);
  return found.reshape({found.size(0), extent.columns()});
}

/// `changed` in the rows that magnitudes of columns count for, `otherwise` in the others.
Tensor Chain::only_own(const Step& step, const Rows& rows, const Tensor& changed,
                       const Tensor& otherwise) {
  if (step.rows == 0) return changed;
  auto numbers = rows.numbers(changed.device()) - step.first;
  auto inside = numbers.ge(0).logical_and(numbers.lt(step.rows));
  return at::where(inside.unsqueeze(1), changed, otherwise);
}

Tensor Chain::rows_after(std::size_t steps, const Rows& rows) const {
  if (steps == 0) return base_rows(rows).to(at::kFloat);
  const auto& step = steps_[steps - 1];
  auto tile = rows_before(steps - 1, rows);
  auto change = step.change->rows(tile, rows);
  auto unit = step.change->unit(step.magnitude.defined());
  if (!step.magnitude.defined()) return at::add(tile, change, step.strength * unit);
  auto changed = at::add(tile, change, unit);
  if (step.by_output) {
    auto norms = at::linalg_vector_norm(tile, 2, {1}, true) + norm_epsilon;
    changed.mul_(row_factors(rows.of(step.magnitude).unsqueeze(1), norms));
  } else {
    auto factors = step.magnitude / column_norms(steps - 1);
    auto columns = changed.unflatten(1, {factors.size(0), -1});
    changed = only_own(step, rows, (columns * factors.unsqueeze(1)).flatten(1), tile);
  }
  return step.strength == 1 ? changed : at::lerp(tile, changed, step.strength);
}

/// What a step starts from: what was there before, padded where the step wants it larger.
Tensor Chain::rows_before(std::size_t step, const Rows& rows) const {
  const auto& before = step ? steps_[step - 1].shape : weight_.shape();
  const auto& shape = steps_[step].shape;
  if (before == shape) return rows_after(step, rows);
  auto some = rows;
  some.first = std::min(rows.first, before[0]);
  some.count = std::min(rows.first + rows.count, before[0]) - some.first;
  auto tile = pad_columns(rows_after(step, some), before, shape);
  return at::constant_pad_nd(tile, {0, 0, 0, rows.count - some.count});
}

Tensor Chain::row_norms(std::size_t step) const {
  if (!rows_fit()) return norms_by_products(step, true);
  std::vector<Tensor> parts;
  for_tiles([&](const Rows& rows) {
    auto tile = step ? rows_before(step, rows) : base_rows(rows);
    parts.push_back(at::linalg_vector_norm(tile, 2, {1}, false, at::kFloat));
  });
  return at::cat(parts) + norm_epsilon;
}

/// Norms of the columns of the weight with the step's change: [in], over rows and kernel.
Tensor Chain::column_norms(std::size_t step) const {
  auto& known = steps_[step].column_norms;
  if (!known.defined())
    known = rows_fit() ? column_norms_by_rows(step) : norms_by_products(step, false);
  return known;
}

Tensor Chain::column_norms_by_rows(std::size_t step) const {
  const auto& change = *steps_[step].change;
  Extent extent(steps_[step].shape);
  Tensor sum;
  for_tiles([&](const Rows& rows) {
    auto tile = rows_before(step, rows);
    auto changed = at::add(tile, change.rows(tile, rows), change.unit(true));
    changed = only_own(steps_[step], rows, changed, at::zeros_like(changed));
    auto squares = changed.square().sum(0).view({extent.in, extent.kernel}).sum(1);
    sum = sum.defined() ? sum.add_(squares) : squares;
  });
  return sum.sqrt_() + norm_epsilon;
}

/// The same where rows cannot come one by one: the columns are the products of unit vectors, some
/// at a time.
Tensor Chain::norms_by_products(std::size_t step, bool of_rows) const {
  const auto& change = *steps_[step].change;
  Extent extent(steps_[step].shape);
  LinearProducts products(extent.kernel);
  const Before before = [&](const Tensor& x, const Products& its) {
    return product_after(step, x, its);
  };
  auto options = steps_[step].magnitude.options().dtype(weight_.dtype());
  auto count = std::max<std::int64_t>(1, tile_bytes_ / (static_cast<std::int64_t>(sizeof(float)) *
                                                        std::max(extent.out, extent.columns())));
  std::vector<Tensor> sums;
  for (std::int64_t first = 0; first < extent.columns(); first += count) {
    auto some = std::min(count, extent.columns() - first);
    auto units = at::zeros({some, extent.columns()}, options);
    units.narrow(1, first, some).fill_diagonal_(1);
    auto columns = of_rows ? before(units, products)
                           : change.product(units, before, change.unit(true), products);
    if (!of_rows && steps_[step].rows > 0)
      columns = columns.narrow(1, steps_[step].first, steps_[step].rows);
    auto squares = columns.to(at::kFloat).square().sum(of_rows ? 0 : 1);
    if (of_rows && !sums.empty())
      sums[0].add_(squares);
    else
      sums.push_back(squares);
  }
  if (of_rows) return sums[0].sqrt_() + norm_epsilon;
  return at::cat(sums).view({extent.in, extent.kernel}).sum(1).sqrt_() + norm_epsilon;
}

Tensor Chain::whole() const {
  std::vector<Tensor> parts;
  auto dtype = weight_.dtype();
  for_tiles([&](const Rows& rows) { parts.push_back(rows_after(steps_.size(), rows).to(dtype)); });
  return (parts.size() == 1 ? parts[0] : at::cat(parts)).reshape(shape_);
}

Tensor Chain::rows(const Tensor& ids) const {
  if (granule_ > 1 || is_reshaped_) return whole().flatten(1).index_select(0, ids);
  return rows_after(steps_.size(), Rows{0, ids.numel(), ids}).to(weight_.dtype());
}

// --- products

Tensor Chain::product_after(std::size_t steps, const Tensor& x, const Products& products,
                            const std::optional<Tensor>& bias) const {
  if (steps == 0) {
    if (!base_.defined()) return products.with(x, weight_, bias);
    return products.whole(x, base_.to(x.scalar_type()));
  }
  const auto& step = steps_[steps - 1];
  if (step.magnitude.defined()) return with_magnitude(step, steps - 1, x, products);
  const Before before = [&](const Tensor& input, const Products& its) {
    return product_after(steps - 1, input, its, bias);
  };
  return step.change->product(x, before, step.strength * step.change->unit(false), products);
}

/// W + s · (V ∘ g - W) with V = W + unit · change, g a factor for each output or input channel.
Tensor Chain::with_magnitude(const Step& step, std::size_t index, const Tensor& x,
                             const Products& products) const {
  const Before before = [&](const Tensor& input, const Products& its) {
    return product_after(index, input, its);
  };
  auto s = step.strength, unit = step.change->unit(true);
  if (step.by_output) {
    auto factors = row_factors(step.magnitude, row_norms(index)).to(x.scalar_type());
    auto y = before(x, products);
    auto changed = at::add(y, step.change->change(x, y, before, products), unit);
    changed = products.scale_out(changed, factors);
    return s == 1 ? changed : y.mul_(1 - s).add_(changed, s);
  }
  auto factors = (step.magnitude / column_norms(index)).to(x.scalar_type());
  auto scaled = products.scale_in(x, factors);
  if (step.rows > 0) {
    auto own = [&](const Tensor& all) {
      return all.narrow(products.channels(), step.first, step.rows);
    };
    auto changed = own(step.change->product(scaled, before, unit, products));
    auto y = before(x, products);
    own(y).mul_(1 - s).add_(changed, s);
    return y;
  }
  if (step.change->uses_weight()) {
    auto changed = step.change->product(scaled, before, unit, products);
    return s == 1 ? changed : before(x, products).mul_(1 - s).add_(changed, s);
  }
  // The weight's products of both inputs in one.
  auto y = before(s == 1 ? scaled : at::lerp(x, scaled, s), products);
  return y.add_(step.change->change(scaled, {}, before, products), s * unit);
}

Tensor Chain::product_by_rows(const Tensor& x, const Products& products) const {
  std::vector<Tensor> parts;
  for_tiles([&](const Rows& rows) {
    parts.push_back(products.whole(x, rows_after(steps_.size(), rows).to(x.scalar_type())));
  });
  return parts.size() == 1 ? parts[0] : at::cat(parts, products.channels());
}

Tensor Chain::product(const Tensor& x, const Products& products,
                      const std::optional<Tensor>& bias) const {
  bool adds_only = !by_rows_ && !base_.defined();
  for (const auto& step : steps_)
    adds_only = adds_only && !step.change->uses_weight() && !step.magnitude.defined();
  if (adds_only) return product_after(steps_.size(), x, products, bias);
  auto y = by_rows_ ? product_by_rows(x, products) : product_after(steps_.size(), x, products);
  if (!bias) return y;
  auto dims = y.dim();
  auto after = products.channels() < 0 ? 0 : dims - 1 - products.channels();
  std::vector<std::int64_t> sizes(after + 1, 1);
  sizes[0] = bias->size(0);
  return y.add_(bias->view(sizes));
}

}  // namespace distorch::nn
